"""Declare the commands, their options and their help."""

import argparse
from functools import partial
from pathlib import Path

from picwish_watchd import __version__

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


# columns: to find out how many a terminal has, argparse loads what knows all kinds of archives
_FALLBACK_WIDTH = 80


_DESCRIPTION = """\
Hot folders for PicWish's Advanced Image Enhancer: what is dropped into an inbox
comes out enhanced in the outbox, and is paid for once.
"""


_EPILOG = """\
exit codes: 0 fine; 1 some job did not end well; 2 wrong usage;
74 journal unusable; 75 another daemon runs; 78 configuration wrong or no key.
Try `picwish-watchd demo` first: it needs no key and costs nothing.
"""


def build_parser(first: str | None = None, *, shown: bool = True) -> argparse.ArgumentParser:
    """The command line: what `main` reads, and what the manual page and the completions are made from.

    ``first``: its first word, where only what that one needs is to be made: all of it takes longer than most commands.
    ``shown``: whether somebody wants to read it; else what an error shows of it is as wide as any terminal.
    """
    width = None if shown else _FALLBACK_WIDTH
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
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            formatter_class=partial(argparse.HelpFormatter, width=width),
        )
        if first not in ("-h", "--help", "--version"):
            sub.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration file")
            _ARGUMENT_ADDERS[name](sub)
    return top


def _add_run_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--once", action="store_true", help="bring everything that lies in the inboxes to its end, then exit"
    )


def _add_json_option(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="for scripts")


def _add_jobs_arguments(sub: argparse.ArgumentParser) -> None:
    from picwish_watchd.job import State

    sub.add_argument("--state", choices=[state.value for state in State], metavar="STATE", help=", ".join(State))
    sub.add_argument("--rule", metavar="NAME", help="only the jobs of this rule")
    sub.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")


def _add_show_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", type=int, metavar="ID", help="the number that `jobs` shows")
    _add_json_option(sub)


def _add_why_arguments(sub: argparse.ArgumentParser) -> None:
    told = "a file or folder, whether it is (still) there or not; -- goes before one that begins with -"
    sub.add_argument("path", type=Path, metavar="PATH", help=told)
    _add_json_option(sub)


def _add_retry_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", type=int, nargs="*", metavar="ID", help="the numbers that `jobs` shows")
    sub.add_argument("--state", choices=["failed", "held", "rejected"], help="all jobs in this state instead")
    sub.add_argument("--rule", metavar="NAME", help="with --state: only those of this rule")


def _add_approve_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("rule", metavar="RULE", help="the rule's name")


def _add_spend_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--by", choices=["day", "month", "rule"], default="day", help="default: day")
    _add_json_option(sub)


def _add_export_arguments(sub: argparse.ArgumentParser) -> None:
    form = sub.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--csv", action="store_true", help="RFC 4180, with a header; text like a formula gets an apostrophe"
    )
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.add_argument("--what", choices=["jobs", "spend"], default="jobs", help="default: jobs")
    sub.add_argument("--since", metavar="DATE", help="the first day, such as 2026-01-01: when found, or when submitted")
    sub.add_argument("--until", metavar="DATE", help="the last day; days are local, and counted whole")
    sub.add_argument("--rule", metavar="NAME", help="only those of this rule")


def _add_service_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=["install", "uninstall", "show"])
    sub.add_argument("--user", default="picwish", metavar="NAME", help="who the service runs as (default: picwish)")
    sub.add_argument("--group", metavar="NAME", help="the group that owns your shared folders (default: the user's)")
    sub.add_argument("--name", default="picwish-watchd", metavar="NAME", help="the service (default: picwish-watchd)")
    sub.add_argument("--unit-dir", type=Path, metavar="DIR", help="where units stand (default: /etc/systemd/system)")
    sub.add_argument("--dry-run", action="store_true", help="tell what would be done and written; do nothing")


def _add_notify_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=["test"], metavar="test", help="send a message through each notifier")
    sub.add_argument("--to", type=int, metavar="N", help="only through the N-th one of the configuration")


def _add_simulate_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--port", type=int, default=0, metavar="N", help="the port to listen on (default: any free one)")


def _add_completion_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell to print it for")


def _add_no_arguments(_sub: argparse.ArgumentParser) -> None:
    pass


_ARGUMENT_ADDERS = {
    "run": _add_run_arguments,
    "check": _add_no_arguments,
    "status": _add_json_option,
    "jobs": _add_jobs_arguments,
    "show": _add_show_arguments,
    "why": _add_why_arguments,
    "plan": _add_json_option,
    "retry": _add_retry_arguments,
    "approve": _add_approve_arguments,
    "spend": _add_spend_arguments,
    "export": _add_export_arguments,
    "vacuum": _add_no_arguments,
    "manual": _add_no_arguments,
    "completion": _add_completion_arguments,
    "service": _add_service_arguments,
    "notify": _add_notify_arguments,
    "demo": _add_no_arguments,
    "simulate": _add_simulate_arguments,
}
