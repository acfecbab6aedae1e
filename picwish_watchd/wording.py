"""Write numbers, times and names for people."""

from collections.abc import Collection, Mapping
from pathlib import PurePath

from picwish_watchd.state import State


def iso_utc(seconds: float | None) -> str | None:
    """Return Unix seconds as ISO 8601 UTC with milliseconds; None for None."""
    if seconds is None:
        return None
    # Imported here: `status` shows no times while the daemon has nothing to do, and starts faster without datetime.
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pluralize(number: int, what: str) -> str:
    """Return a number with its noun: "1 image", "2 images"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def describe_orphaned_jobs(rules: Collection[str], counts: Mapping[str, Mapping[State, int]]) -> list[str]:
    """Return a sentence for each rule that has queued images but is not one of ``rules`` any more.

    ``counts`` is the number of jobs by rule and state.
    """
    return [
        f"{pluralize(states[State.QUEUED], 'queued image')} {'waits' if states[State.QUEUED] == 1 else 'wait'} for "
        f"rule {rule}, which left the configuration: put it back"
        for rule, states in sorted(counts.items())
        if rule not in rules and states.get(State.QUEUED)
    ]


def render_spent(spent: int, most: int | None) -> str:
    """Return credits with their limit, if there is one: "35", "35 of 500"."""
    return str(spent) if most is None else f"{spent} of {most}"


def render_approval_wait(images: int, price: int, rule: str) -> str:
    """Return a sentence for images that `budget.burst` holds; ``price`` is the credits of one."""
    what = f"{pluralize(images, 'image')} ({pluralize(images * price, 'credit')})"
    return f"{what} {'waits' if images == 1 else 'wait'} for `picwish-watchd approve {rule}`"


def printable_path(name: str | PurePath) -> str:
    """Return a file name with every character escaped that cannot be printed ("\\n", "\\xff")."""
    return "".join(each if each.isprintable() else _escape_character(each) for each in str(name))


def _escape_character(character: str) -> str:
    # A byte that is not UTF-8, as PEP 383 represents it.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]
