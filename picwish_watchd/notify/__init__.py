"""Telling people what they should know, by webhook, command, mail or apprise; never at the cost of the work.

From the ground up: ``notice`` is one message; ``webhook``, ``command``, ``mail`` and ``services`` send one, each in its
way; ``courier`` brings messages to one notifier, in a thread of its own; ``memory`` is what outlives a restart;
``endings``, ``troubles``, ``spent`` and ``digest`` find out what is to be told; ``herald`` puts them together.
"""
