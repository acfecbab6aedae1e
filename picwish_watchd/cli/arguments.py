"""Declare the commands, their options and their help.

A command is one entry of `COMMANDS` and the module of that name in ``cli/commands``. The modules are not imported
here: each loads libraries that the other commands do not need.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from picwish_watchd import __version__

# Columns of help in an error message. To ask the terminal for its width, argparse loads all kinds of archivers.
_FALLBACK_WIDTH = 80

_DESCRIPTION = """\
Hot folders for PicWish's Advanced Image Enhancer: drop images into an inbox and
get them enhanced in an outbox. Every image is paid for once.
"""

_EPILOG = """\
exit codes: 0 success; 1 something failed or still waits; 2 wrong usage;
74 journal unusable; 75 another daemon runs; 78 configuration wrong or no key.
Try `picwish-watchd demo` first: it needs no key and costs nothing.
"""


# A plain class: the module typing, which NamedTuple needs, takes a sixth of the time of `--help`.
class Command:
    """One command of the command line: its help and what declares its arguments.

    The module ``picwish_watchd.cli.commands.NAME`` runs it: ``run(args)`` returns the exit code.
    """

    __slots__ = ("add_arguments", "help")

    def __init__(self, summary: str, add_arguments: Callable[[argparse.ArgumentParser], None]) -> None:
        #: One line that begins with a verb in lower case and has no full stop.
        self.help = summary
        self.add_arguments = add_arguments


def build_parser(first: str | None = None, *, shown: bool = True) -> argparse.ArgumentParser:
    """Build the parser of the command line; the manual page and the completions are made from it, too.

    ``first`` is the first word of the command line. If it is a command, only that command gets its arguments: to
    declare all of them takes longer than most commands. ``shown`` is whether the help will be printed; if not, the
    width of the terminal is not looked up.
    """
    width = None if shown else _FALLBACK_WIDTH
    parser = argparse.ArgumentParser(
        prog="picwish-watchd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=width),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in [first] if first in COMMANDS else COMMANDS:
        command = COMMANDS[name]
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            formatter_class=partial(argparse.HelpFormatter, width=width),
        )
        if first not in ("-h", "--help", "--version"):
            subparser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration file")
            command.add_arguments(subparser)
    return parser


def _add_no_arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="process everything in the inboxes, then exit")


def _add_jobs_arguments(parser: argparse.ArgumentParser) -> None:
    from picwish_watchd.job import State

    states = [state.value for state in State]
    parser.add_argument("--state", choices=states, metavar="STATE", help=f"only jobs in this state: {', '.join(State)}")
    parser.add_argument("--rule", metavar="NAME", help="only jobs of this rule")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, for scripts")


def _add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=int, metavar="ID", help="the number that `jobs` shows")
    _add_json_option(parser)


def _add_why_arguments(parser: argparse.ArgumentParser) -> None:
    text = "a file or folder, which need not exist any more; put -- before a path that begins with -"
    parser.add_argument("path", type=Path, metavar="PATH", help=text)
    _add_json_option(parser)


def _add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=int, nargs="*", metavar="ID", help="the numbers that `jobs` shows")
    parser.add_argument("--state", choices=["failed", "held", "rejected"], help="all jobs in this state instead")
    parser.add_argument("--rule", metavar="NAME", help="with --state: only jobs of this rule")


def _add_approve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="RULE", help="the name of the rule")


def _add_spend_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=["day", "month", "rule"], default="day", help="default: day")
    _add_json_option(parser)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group(required=True)
    csv_text = "CSV as RFC 4180 defines it, with a header; text that looks like a formula gets an apostrophe"
    form.add_argument("--csv", action="store_true", help=csv_text)
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--what", choices=["jobs", "spend"], default="jobs", help="default: jobs")
    since_text = "the first day, such as 2026-01-01; counts when a job was found, for spend when it was submitted"
    parser.add_argument("--since", metavar="DATE", help=since_text)
    parser.add_argument("--until", metavar="DATE", help="the last day, included; days are in local time")
    parser.add_argument("--rule", metavar="NAME", help="only rows of this rule")


def _add_service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["install", "uninstall", "show"])
    parser.add_argument("--user", default="picwish", metavar="NAME", help="the service's user (default: picwish)")
    parser.add_argument("--group", metavar="NAME", help="the group of your shared folders (default: the user's)")
    parser.add_argument(
        "--name", default="picwish-watchd", metavar="NAME", help="the service (default: picwish-watchd)"
    )
    parser.add_argument("--unit-dir", type=Path, metavar="DIR", help="folder of units (default: /etc/systemd/system)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done and written; change nothing")


def _add_notify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["test"], metavar="test", help="send a message through each notifier")
    parser.add_argument("--to", type=int, metavar="N", help="only through the N-th notifier of the configuration")


def _add_simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the port to listen on (default: a free one)")


def _add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell that will read it")


#: Every command by its name, in the order of the help.
COMMANDS: dict[str, Command] = {
    "run": Command("watch the inboxes and enhance new images until stopped", _add_run_arguments),
    "check": Command("test configuration, folders, journal, key and disk; submit nothing", _add_no_arguments),
    "status": Command("show whether the daemon runs, jobs, credits and problems", _add_json_option),
    "jobs": Command("list the jobs, newest first", _add_jobs_arguments),
    "show": Command("show one job with its whole history", _add_show_arguments),
    "why": Command(
        "explain what happened to a file: its rule, its job, what it waits for, what to do", _add_why_arguments
    ),
    "plan": Command("count the unfinished images in the inboxes and what they cost; submit nothing", _add_json_option),
    "retry": Command(
        "continue jobs that ended badly; only what must be paid again is paid again", _add_retry_arguments
    ),
    "approve": Command(
        "release images that budget.burst holds; accept a rule's folders on their present mounts",
        _add_approve_arguments,
    ),
    "spend": Command("show the credits used, by day, month or rule", _add_spend_arguments),
    "export": Command("write jobs or credits as CSV or JSON lines, for accounting", _add_export_arguments),
    "vacuum": Command(
        "shrink the journal's file after old histories were removed; the daemon must not run", _add_no_arguments
    ),
    "manual": Command("print the manual page, for man(1)", _add_no_arguments),
    "completion": Command("print a script that makes a shell complete commands and options", _add_completion_arguments),
    "service": Command(
        "write, show or remove the systemd unit of this installation and configuration", _add_service_arguments
    ),
    "notify": Command("send a test message through the notifiers of the configuration", _add_notify_arguments),
    "demo": Command("make a complete round trip on this machine, without key or configuration", _add_no_arguments),
    "simulate": Command("run the simulator alone: a stand-in for PicWish on this machine", _add_simulate_arguments),
}
