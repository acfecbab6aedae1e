"""Threads, wake-ups, heartbeats and the memory limit of the event loop; nothing here knows of images or jobs."""
