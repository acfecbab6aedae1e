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


# objects until a short command looks for garbage: to load it alone makes some ten thousand
_GC_THRESHOLD = 50_000


_HELP_FLAGS = frozenset({"-h", "--help"})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and answers its exit code; no traceback ever reaches a user."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # a name that this terminal cannot show is escaped, and no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(next(iter(words), None), shown=not _HELP_FLAGS.isdisjoint(words)).parse_args(words)
    # it would end a daemon that is still being loaded; that unblocks it once it can obey
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
        # whoever read our output has enough; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the top of the CLI: a bug is told in a line
        return _report_bug(error)
    return code


def _replace_closed_streams() -> None:
    """Puts nothing in the place of those that were closed (2>&-): else the next file that is opened stood there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the program runs


def print_error(error: WatchdError) -> int:
    """Tells an error and what to do about it on stderr; answers its exit code."""
    print(f"picwish-watchd: {_sanitize_output(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {_sanitize_output(error.hint)}", file=sys.stderr)
    return error.exit_code


def _report_bug(error: Exception) -> int:
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    print(
        "picwish-watchd: an unexpected error, which is a bug: "
        f"{type(error).__name__}: {_sanitize_output(str(error))} ({place})\n"
        "hint: nothing was lost; start again, and please report this line",
        file=sys.stderr,
    )
    return os.EX_SOFTWARE


def _sanitize_output(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in redact(text))
