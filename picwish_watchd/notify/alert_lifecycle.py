"""Troubles that last: told once, when they have lasted a while, and once more when they are over."""

from collections.abc import Iterator

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.notify.alerts import Trouble, View
from picwish_watchd.notify.failures import QUIET
from picwish_watchd.notify.message import Notice, lasted
from picwish_watchd.notify.state_file import Episode, Memory

#: seconds that a trouble must last to be told, and be gone to be over: what comes and goes is no news
PATIENCE = 60.0


def follow(memory: Memory, view: View, unproved: set[str], now: float) -> Iterator[Notice]:
    """What is to be told now. ``unproved``: troubles of an earlier run of which nobody knows yet whether they last."""
    current = {trouble.key: trouble for trouble in view.troubles}
    for key, trouble in current.items():
        unproved.discard(key)
        episode = memory.open.setdefault(key, Episode(since=now))
        # the clock may have been set back
        episode.since = min(episode.since, now)
        episode.gone, episode.over, episode.event = None, trouble.over, trouble.event
        quiet = now - memory.told.get(key, -QUIET) < QUIET
        if not episode.told and not quiet and now - episode.since >= PATIENCE:
            episode.told = True
            memory.told[key] = now
            yield _begun(trouble, episode, now)
    for key, episode in list(memory.open.items()):
        if key in current or (gone := _gone(key, episode, view, unproved, now)) is None:
            continue
        if gone < PATIENCE and episode.told:
            continue
        del memory.open[key]
        if episode.told and episode.over:
            yield _ended(key, episode, now)


def _gone(key: str, episode: Episode, view: View, unproved: set[str], now: float) -> float | None:
    """For how long it has been gone, in seconds; None while it is not known to be."""
    kind, _, name = key.partition(":")
    if kind != "blocked" and name not in view.rules:
        # its rule left the configuration: no news
        episode.over = ""
        return PATIENCE
    if key in unproved or key not in view.well:
        return None
    episode.gone = min(now, episode.gone if episode.gone is not None else now)
    return now - episode.gone


def _begun(trouble: Trouble, episode: Episode, now: float) -> Notice:
    subject = trouble.subject[:1].upper() + trouble.subject[1:]
    since = f"That is so for {lasted(now - episode.since)}."
    facts = {"trouble": trouble.key, **trouble.facts}
    return Notice(f"{trouble.key}-{episode.since:.0f}", trouble.event, now, subject, f"{trouble.text}\n{since}", facts)


def _ended(key: str, episode: Episode, now: float) -> Notice:
    gone = episode.gone if episode.gone is not None else now
    subject = f"{episode.over}, after {lasted(gone - episode.since)}"
    facts = {"trouble": key, "seconds": round(gone - episode.since)}
    text = f"{subject}. It goes on by itself; there is nothing to do."
    return Notice(
        f"{key}-{episode.since:.0f}-over", NotificationEvent(episode.event), now, subject, text, facts, over=True
    )
