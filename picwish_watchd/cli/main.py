"""Run one command and return its exit code."""

import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from picwish_watchd.cli.arguments import build_parser
from picwish_watchd.errors import WatchdError
from picwish_watchd.redaction import redact

_LONG_RUNNING = ("run", "demo", "simulate")
# Objects before the garbage collector runs in a short command. Loading one creates about ten thousand.
_GC_THRESHOLD = 50_000

_HELP_FLAGS = frozenset({"-h", "--help"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. A user never sees a traceback."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # Escape characters that this terminal cannot show, instead of raising an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(next(iter(words), None), shown=not _HELP_FLAGS.isdisjoint(words)).parse_args(words)
    # SIGHUP would end a daemon that is still being loaded. The daemon unblocks it once it can handle it.
    if args.command == "run":
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    if args.command not in _LONG_RUNNING:
        gc.set_threshold(_GC_THRESHOLD)
    command = importlib.import_module(f"picwish_watchd.cli.commands.{args.command}")
    try:
        code: int = command.run(args)
        sys.stdout.flush()
    except WatchdError as error:
        return print_error(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output is gone; keep the interpreter from complaining about that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the top of the CLI: a bug becomes one line
        return _report_bug(error)
    return code


def _replace_closed_streams() -> None:
    """Open /dev/null for closed standard streams (2>&-), or the next opened file would get their descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - stays open until the program ends


def print_error(error: WatchdError) -> int:
    """Print an error and what to do about it to stderr; return its exit code."""
    print(f"picwish-watchd: {_sanitize_output(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {_sanitize_output(error.hint)}", file=sys.stderr)
    return error.exit_code


def _report_bug(error: Exception) -> int:
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    print(
        "picwish-watchd: unexpected error, which is a bug: "
        f"{type(error).__name__}: {_sanitize_output(str(error))} ({place})\n"
        "hint: nothing was lost; start it again, and please report this line",
        file=sys.stderr,
    )
    return os.EX_SOFTWARE


def _sanitize_output(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in redact(text))
