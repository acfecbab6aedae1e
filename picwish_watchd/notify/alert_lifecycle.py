"""Report an alert once when it has lasted a while, and once more when it is over."""

from collections.abc import Iterator

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.notify.alerts import Alert, AlertView
from picwish_watchd.notify.failures import REPEAT_INTERVAL
from picwish_watchd.notify.message import Message, format_elapsed
from picwish_watchd.notify.state_file import AlertState, NotifyState

#: Seconds for which an alert must hold to be reported, and must be gone to be over.
ALERT_DEBOUNCE = 60.0


def update_alerts(state: NotifyState, view: AlertView, unconfirmed: set[str], now: float) -> Iterator[Message]:
    """Update the alerts in ``state`` from ``view`` and yield the messages that are due at ``now`` (Unix seconds).

    ``unconfirmed`` holds the keys of alerts of an earlier run that this run could not check yet. A key is removed from
    it when the alert is seen again.
    """
    current = {alert.key: alert for alert in view.alerts}
    for key, alert in current.items():
        unconfirmed.discard(key)
        alert_state = state.open.setdefault(key, AlertState(since=now))
        # The clock may have been set back.
        alert_state.since = min(alert_state.since, now)
        alert_state.gone, alert_state.over, alert_state.event = None, alert.recovery_text, alert.event
        is_repeat = now - state.told.get(key, -REPEAT_INTERVAL) < REPEAT_INTERVAL
        if not alert_state.told and not is_repeat and now - alert_state.since >= ALERT_DEBOUNCE:
            alert_state.told = True
            state.told[key] = now
            yield _build_alert_message(alert, alert_state, now)
    for key, alert_state in list(state.open.items()):
        if key in current or (cleared := _seconds_cleared(key, alert_state, view, unconfirmed, now)) is None:
            continue
        if cleared < ALERT_DEBOUNCE and alert_state.told:
            continue
        del state.open[key]
        if alert_state.told and alert_state.over:
            yield _build_recovery_message(key, alert_state, now)


def _seconds_cleared(
    key: str, alert_state: AlertState, view: AlertView, unconfirmed: set[str], now: float
) -> float | None:
    """Return the seconds since the condition of an alert cleared, or None if it may still hold."""
    kind, _, name = key.partition(":")
    if kind != "blocked" and name not in view.rule_names:
        # The rule left the configuration: the alert ends without a message.
        alert_state.over = ""
        return ALERT_DEBOUNCE
    if key in unconfirmed or key not in view.healthy_keys:
        return None
    alert_state.gone = min(now, alert_state.gone if alert_state.gone is not None else now)
    return now - alert_state.gone


def _build_alert_message(alert: Alert, alert_state: AlertState, now: float) -> Message:
    subject = alert.subject[:1].upper() + alert.subject[1:]
    text = f"{alert.text}\nThis has lasted for {format_elapsed(now - alert_state.since)}."
    facts = {"trouble": alert.key, **alert.facts}
    return Message(f"{alert.key}-{alert_state.since:.0f}", alert.event, now, subject, text, facts)


def _build_recovery_message(key: str, alert_state: AlertState, now: float) -> Message:
    gone = alert_state.gone if alert_state.gone is not None else now
    subject = f"{alert_state.over}, after {format_elapsed(gone - alert_state.since)}"
    facts = {"trouble": key, "seconds": round(gone - alert_state.since)}
    text = f"{subject}. The work continues automatically; there is nothing to do."
    event = NotificationEvent(alert_state.event)
    return Message(f"{key}-{alert_state.since:.0f}-over", event, now, subject, text, facts, over=True)
