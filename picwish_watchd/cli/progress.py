"""How far ``run --once`` and the demo are: a bar on a terminal, plain lines elsewhere."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import UNSUCCESSFUL, State
from picwish_watchd.reporting.forecast import Forecast

# seconds
_REFRESH_INTERVAL = 0.2


class ProgressReporter:
    """Follows a daemon in the same process. ``stream`` is where log lines must go so that they do not cut the bar."""

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO = stream
        self._out = stream
        self._is_terminal = stream.isatty()
        self._bar: _ProgressBar | None = None
        # the jobs, and what they wait for
        self._last_printed: tuple[str, tuple[str, ...]] = ("", ())
        if self._is_terminal:
            self._bar = _ProgressBar()
            self.stream = self._bar.stream

    async def follow(self, daemon: Daemon) -> None:
        """Shows the daemon's progress until cancelled, and how it ended."""
        try:
            while True:
                await asyncio.sleep(_REFRESH_INTERVAL)
                self._render(*daemon.progress(), daemon.forecast())
        finally:
            self._render(*daemon.progress(), daemon.forecast())
            if self._bar is not None:
                self._bar.close()

    def _render(self, totals: Counter[State], settling: int, ahead: Forecast | None) -> None:
        ended = totals[State.DONE] + sum(totals[state] for state in UNSUCCESSFUL)
        everything = totals.total() + settling
        words = [f"{totals[state]} {state}" for state in State if totals[state]]
        if settling:
            words.insert(0, f"{settling} settling")
        text = ", ".join(words) or "looking"
        # what was foretold a moment ago has come
        if ended == everything:
            ahead = None
        full = f"{text}; {ahead.render_outlook()}" if ahead is not None and ahead.render_outlook() else text
        news = text, ahead.waits_for if ahead is not None else ()
        if self._bar is not None:
            self._bar.update(ended, everything, full)
        elif news != self._last_printed:
            self._last_printed = news
            print(f"{ended} of {everything}: {full}", file=self._out, flush=True)


async def cancel_and_wait(task: "asyncio.Task[None]") -> None:
    """Cancels a task and waits until it has cleaned up."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _ProgressBar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        self.stream: TextIO = _StreamAboveBar(console)  # type: ignore[assignment]  # only what a log handler calls
        self._progress = RichProgress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), auto_refresh=False)
        self._task = self._progress.add_task("", total=None)
        self._live = Live(self._render("looking"), console=console, vertical_overflow="visible")
        self._live.start()

    def update(self, ended: int, everything: int, text: str) -> None:
        self._progress.update(self._task, completed=ended, total=everything or None)
        self._live.update(self._render(text))

    def close(self) -> None:
        self._live.stop()

    def _render(self, text: str) -> "Group":
        """The bar, and below it the words: beside it, a terminal of 80 columns cut off what is still to be paid."""
        from rich.console import Group
        from rich.text import Text

        return Group(self._progress, Text(text))


class _StreamAboveBar:
    """A stream whose lines appear above the bar."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    def write(self, text: str) -> int:
        from rich.text import Text

        if text.strip():
            self._console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._console.file.fileno()


if TYPE_CHECKING:
    from rich.console import Console, Group
