"""Notifications: tell people what they should know, by webhook, command, mail or apprise, without delaying the work.

From the ground up: ``message`` is one message. ``channels`` sends one by each kind of channel. ``channel_worker``
delivers the messages of one notifier. ``state_file`` keeps what must survive a restart. ``failures``, ``alerts``,
``alert_lifecycle``, ``budget_alerts`` and ``digest`` decide what is reported. ``dispatcher`` puts them together.
"""
