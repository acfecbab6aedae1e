"""Show the progress of ``run --once`` and the demo: a bar on a terminal, plain lines elsewhere."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import UNSUCCESSFUL, State
from picwish_watchd.reporting.forecast import Forecast

# Seconds.
_REFRESH_INTERVAL = 0.2


class ProgressReporter:
    """Shows the progress of a daemon in the same process. Log lines must go to ``stream``: it keeps the bar intact."""

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO = stream
        self._out = stream
        self._is_terminal = stream.isatty()
        self._bar: _ProgressBar | None = None
        # The counts of jobs, and what they wait for.
        self._last_printed: tuple[str, tuple[str, ...]] = ("", ())
        if self._is_terminal:
            self._bar = _ProgressBar()
            self.stream = self._bar.stream

    async def follow(self, daemon: Daemon) -> None:
        """Show the daemon's progress until cancelled, then its final state."""
        try:
            while True:
                await asyncio.sleep(_REFRESH_INTERVAL)
                self._render(*daemon.progress(), daemon.forecast())
        finally:
            self._render(*daemon.progress(), daemon.forecast())
            if self._bar is not None:
                self._bar.close()

    def _render(self, totals: Counter[State], settling: int, forecast: Forecast | None) -> None:
        ended = totals[State.DONE] + sum(totals[state] for state in UNSUCCESSFUL)
        total = totals.total() + settling
        parts = [f"{totals[state]} {state}" for state in State if totals[state]]
        if settling:
            parts.insert(0, f"{settling} settling")
        text = ", ".join(parts) or "scanning"
        # The forecast is outdated once everything is done.
        if ended == total:
            forecast = None
        full = f"{text}; {forecast.render_outlook()}" if forecast is not None and forecast.render_outlook() else text
        shown = text, forecast.waits_for if forecast is not None else ()
        if self._bar is not None:
            self._bar.update(ended, total, full)
        elif shown != self._last_printed:
            self._last_printed = shown
            print(f"{ended} of {total}: {full}", file=self._out, flush=True)


async def cancel_and_wait(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait until it has cleaned up."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _ProgressBar:
    """A progress bar on a terminal, with a line of text below it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        self.stream: TextIO = _StreamAboveBar(console)  # type: ignore[assignment]
        self._progress = RichProgress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), auto_refresh=False)
        self._task = self._progress.add_task("", total=None)
        self._live = Live(self._render("scanning"), console=console, vertical_overflow="visible")
        self._live.start()

    def update(self, ended: int, total: int, text: str) -> None:
        self._progress.update(self._task, completed=ended, total=total or None)
        self._live.update(self._render(text))

    def close(self) -> None:
        self._live.stop()

    def _render(self, text: str) -> "Group":
        """Return the bar with the text below it: beside it, 80 columns would cut off the cost of the backlog."""
        from rich.console import Group
        from rich.text import Text

        return Group(self._progress, Text(text))


class _StreamAboveBar:
    """A text stream whose lines appear above the bar; it has only the methods that a log handler calls."""

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
