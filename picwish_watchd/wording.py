"""Write numbers, times and names as people read them."""

from collections.abc import Collection, Mapping
from pathlib import PurePath

from picwish_watchd.state import State


def iso_utc(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 UTC with milliseconds."""
    if seconds is None:
        return None
    # here: `status` of a daemon at rest tells no times
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pluralize(number: int, what: str) -> str:
    """A number of things as people write it: "1 image", "2 images"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def describe_orphaned_jobs(rules: Collection[str], counts: Mapping[str, Mapping[State, int]]) -> list[str]:
    """Sentences on queued images whose rule is none of ``rules`` any more; ``counts`` as `JournalReader.counts`."""
    return [
        f"{pluralize(states[State.QUEUED], 'queued image')} {'waits' if states[State.QUEUED] == 1 else 'wait'} for "
        f"rule {rule}, which left the configuration: put it back"
        for rule, states in sorted(counts.items())
        if rule not in rules and states.get(State.QUEUED)
    ]


def render_spent(spent: int, most: int | None) -> str:
    """Credits beside their limit, if there is one: "35", "35 of 500"."""
    return str(spent) if most is None else f"{spent} of {most}"


def render_approval_wait(images: int, price: int, rule: str) -> str:
    """A flood that `budget.burst` holds, in words."""
    what = f"{pluralize(images, 'image')} ({pluralize(images * price, 'credit')})"
    return f"{what} {'waits' if images == 1 else 'wait'} for `picwish-watchd approve {rule}`"


def printable_path(name: str | PurePath) -> str:
    """A file name as it can be printed and stored: what is no printable character is escaped ("\\n", "\\xff")."""
    return "".join(each if each.isprintable() else _escape_character(each) for each in str(name))


def _escape_character(character: str) -> str:
    # PEP 383: a byte that is not UTF-8
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]
