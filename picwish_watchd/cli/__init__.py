"""What a person types: one small file a command, each imported only when it is asked for."""

import argparse
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from picwish_watchd import __version__
from picwish_watchd.errors import WatchdError
from picwish_watchd.secrecy import hide

#: Command -> what it does; the module of that name has ``run(args) -> exit code``.
COMMANDS = {
    "run": "watch the inboxes and enhance what is new, until stopped",
    "check": "read the configuration and try folders, journal, key and disk; submit nothing",
    "status": "show whether the daemon runs, jobs, credits, and what is wrong",
    "jobs": "list the jobs, newest first",
    "show": "show one job with its whole history",
    "why": "tell what became of a file and why: its rule, its job, what it waits for, what to do",
    "plan": "tell what the inboxes hold that is not done and what it would cost; submit nothing",
    "retry": "let jobs that ended badly go on; what must be paid again is paid again",
    "approve": "let a flood go that budget.burst holds; accept a rule's folders where they lie now",
    "spend": "show the credits used, by day, month or rule",
    "export": "write jobs or credits as CSV or JSON lines, for accounting",
    "vacuum": "give the room that old histories left in the journal back to the disk; not while the daemon runs",
    "manual": "print the manual page, for man(1)",
    "completion": "print what makes a shell complete our commands and options",
    "service": "write the systemd unit of this installation and configuration, show it, or remove it",
    "notify": "send a test message to those whom notify: names",
    "demo": "make a complete round trip on this machine, with no key and no configuration",
    "simulate": "run the simulator alone: a stand-in for PicWish on this machine",
}

_LONG = ("run", "demo", "simulate")
_GARBAGE = 50_000  # objects until a short command looks for garbage: to load it alone makes some ten thousand
_HELP = frozenset({"-h", "--help"})
_WIDTH = 80  # columns: to find out how many a terminal has, argparse loads what knows all kinds of archives

_DESCRIPTION = """\
Hot folders for PicWish's Advanced Image Enhancer: what is dropped into an inbox
comes out enhanced in the outbox, and is paid for once.
"""

_EPILOG = """\
exit codes: 0 fine; 1 some job did not end well; 2 wrong usage;
74 journal unusable; 75 another daemon runs; 78 configuration wrong or no key.
Try `picwish-watchd demo` first: it needs no key and costs nothing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and answers its exit code; no traceback ever reaches a user."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that this terminal cannot show is escaped, and no error
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    args = parser(next(iter(words), None), shown=not _HELP.isdisjoint(words)).parse_args(words)
    if args.command == "run":  # it would end a daemon that is still being loaded; that unblocks it once it can obey
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    if args.command not in _LONG:
        gc.set_threshold(_GARBAGE)
    command = importlib.import_module(f"picwish_watchd.cli.{args.command}")
    try:
        code: int = command.run(args)
        sys.stdout.flush()
    except WatchdError as error:
        return complain(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has enough; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the top of the CLI: a bug is told in a line
        return _give_up(error)
    return code


def _open_streams() -> None:
    """Puts nothing in the place of those that were closed (2>&-): else the next file that is opened stood there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the program runs


def complain(error: WatchdError) -> int:
    """Tells an error and what to do about it on stderr; answers its exit code."""
    print(f"picwish-watchd: {_printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {_printable(error.hint)}", file=sys.stderr)
    return error.exit_code


def _give_up(error: Exception) -> int:
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    print(
        "picwish-watchd: an unexpected error, which is a bug: "
        f"{type(error).__name__}: {_printable(str(error))} ({place})\n"
        "hint: nothing was lost; start again, and please report this line",
        file=sys.stderr,
    )
    return os.EX_SOFTWARE


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in hide(text))


def parser(first: str | None = None, *, shown: bool = True) -> argparse.ArgumentParser:
    """The command line: what `main` reads, and what the manual page and the completions are made from.

    ``first``: its first word, where only what that one needs is to be made: all of it takes longer than most commands.
    ``shown``: whether somebody wants to read it; else what an error shows of it is as wide as any terminal.
    """
    width = None if shown else _WIDTH
    top = argparse.ArgumentParser(
        prog="picwish-watchd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=width),
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in [first] if first in COMMANDS else COMMANDS:
        purpose = COMMANDS[name]
        sub = commands.add_parser(
            name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".",
            formatter_class=partial(argparse.HelpFormatter, width=width),
        )  # fmt: skip
        if first not in ("-h", "--help", "--version"):
            sub.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration file")
            _ARGUMENTS[name](sub)
    return top


def _run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--once", action="store_true", help="bring everything that lies in the inboxes to its end, then exit"
    )


def _json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="for scripts")


def _jobs(sub: argparse.ArgumentParser) -> None:
    from picwish_watchd.job import State

    sub.add_argument("--state", choices=[state.value for state in State], metavar="STATE", help=", ".join(State))
    sub.add_argument("--rule", metavar="NAME", help="only the jobs of this rule")
    sub.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")


def _show(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", type=int, metavar="ID", help="the number that `jobs` shows")
    _json(sub)


def _why(sub: argparse.ArgumentParser) -> None:
    told = "a file or folder, whether it is (still) there or not; -- goes before one that begins with -"
    sub.add_argument("path", type=Path, metavar="PATH", help=told)
    _json(sub)


def _retry(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", type=int, nargs="*", metavar="ID", help="the numbers that `jobs` shows")
    sub.add_argument("--state", choices=["failed", "held", "rejected"], help="all jobs in this state instead")
    sub.add_argument("--rule", metavar="NAME", help="with --state: only those of this rule")


def _approve(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("rule", metavar="RULE", help="the rule's name")


def _spend(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--by", choices=["day", "month", "rule"], default="day", help="default: day")
    _json(sub)


def _export(sub: argparse.ArgumentParser) -> None:
    form = sub.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--csv", action="store_true", help="RFC 4180, with a header; text like a formula gets an apostrophe"
    )
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.add_argument("--what", choices=["jobs", "spend"], default="jobs", help="default: jobs")
    sub.add_argument("--since", metavar="DATE", help="the first day, such as 2026-01-01: when found, or when submitted")
    sub.add_argument("--until", metavar="DATE", help="the last day; days are local, and counted whole")
    sub.add_argument("--rule", metavar="NAME", help="only those of this rule")


def _service(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=["install", "uninstall", "show"])
    sub.add_argument("--user", default="picwish", metavar="NAME", help="who the service runs as (default: picwish)")
    sub.add_argument("--group", metavar="NAME", help="the group that owns your shared folders (default: the user's)")
    sub.add_argument("--name", default="picwish-watchd", metavar="NAME", help="the service (default: picwish-watchd)")
    sub.add_argument("--unit-dir", type=Path, metavar="DIR", help="where units stand (default: /etc/systemd/system)")
    sub.add_argument("--dry-run", action="store_true", help="tell what would be done and written; do nothing")


def _notify(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=["test"], metavar="test", help="send a message through each notifier")
    sub.add_argument("--to", type=int, metavar="N", help="only through the N-th one of the configuration")


def _simulate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--port", type=int, default=0, metavar="N", help="the port to listen on (default: any free one)")


def _completion(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell to print it for")


def _nothing(_sub: argparse.ArgumentParser) -> None:
    pass


_ARGUMENTS = {
    "run": _run,
    "check": _nothing,
    "status": _json,
    "jobs": _jobs,
    "show": _show,
    "why": _why,
    "plan": _json,
    "retry": _retry,
    "approve": _approve,
    "spend": _spend,
    "export": _export,
    "vacuum": _nothing,
    "manual": _nothing,
    "completion": _completion,
    "service": _service,
    "notify": _notify,
    "demo": _nothing,
    "simulate": _simulate,
}
