"""Announce that something changed that is visible from outside, such as a closed gate or a missing inbox."""

from collections.abc import Callable


class Changes:
    """Listeners that are called at each change, in the event loop, in the order of their subscription."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` at each change from now on."""
        self._listeners.append(listener)

    def notify(self) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            listener()
