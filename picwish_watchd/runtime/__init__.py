"""Threads and wake-ups of the event loop, with no knowledge of images or jobs."""
