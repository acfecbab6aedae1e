"""Troubles that last: told once, when they have lasted a while, and once more when they are over."""

from collections.abc import Iterator

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.notify.alerts import Alert, AlertView
from picwish_watchd.notify.failures import REPEAT_INTERVAL
from picwish_watchd.notify.message import Message, format_elapsed
from picwish_watchd.notify.state_file import AlertState, NotifyState

#: seconds that a trouble must last to be told, and be gone to be over: what comes and goes is no news
ALERT_DEBOUNCE = 60.0


def update_alerts(memory: NotifyState, view: AlertView, unproved: set[str], now: float) -> Iterator[Message]:
    """What is to be told now. ``unproved``: troubles of an earlier run of which nobody knows yet whether they last."""
    current = {trouble.key: trouble for trouble in view.alerts}
    for key, trouble in current.items():
        unproved.discard(key)
        episode = memory.open.setdefault(key, AlertState(since=now))
        # the clock may have been set back
        episode.since = min(episode.since, now)
        episode.gone, episode.over, episode.event = None, trouble.recovery_text, trouble.event
        quiet = now - memory.told.get(key, -REPEAT_INTERVAL) < REPEAT_INTERVAL
        if not episode.told and not quiet and now - episode.since >= ALERT_DEBOUNCE:
            episode.told = True
            memory.told[key] = now
            yield _build_alert_message(trouble, episode, now)
    for key, episode in list(memory.open.items()):
        if key in current or (gone := _seconds_cleared(key, episode, view, unproved, now)) is None:
            continue
        if gone < ALERT_DEBOUNCE and episode.told:
            continue
        del memory.open[key]
        if episode.told and episode.over:
            yield _build_recovery_message(key, episode, now)


def _seconds_cleared(key: str, episode: AlertState, view: AlertView, unproved: set[str], now: float) -> float | None:
    """For how long it has been gone, in seconds; None while it is not known to be."""
    kind, _, name = key.partition(":")
    if kind != "blocked" and name not in view.rule_names:
        # its rule left the configuration: no news
        episode.over = ""
        return ALERT_DEBOUNCE
    if key in unproved or key not in view.healthy_keys:
        return None
    episode.gone = min(now, episode.gone if episode.gone is not None else now)
    return now - episode.gone


def _build_alert_message(trouble: Alert, episode: AlertState, now: float) -> Message:
    subject = trouble.subject[:1].upper() + trouble.subject[1:]
    since = f"That is so for {format_elapsed(now - episode.since)}."
    facts = {"trouble": trouble.key, **trouble.facts}
    return Message(f"{trouble.key}-{episode.since:.0f}", trouble.event, now, subject, f"{trouble.text}\n{since}", facts)


def _build_recovery_message(key: str, episode: AlertState, now: float) -> Message:
    gone = episode.gone if episode.gone is not None else now
    subject = f"{episode.over}, after {format_elapsed(gone - episode.since)}"
    facts = {"trouble": key, "seconds": round(gone - episode.since)}
    text = f"{subject}. It goes on by itself; there is nothing to do."
    return Message(
        f"{key}-{episode.since:.0f}-over", NotificationEvent(episode.event), now, subject, text, facts, over=True
    )
