"""Regenerate the manual page and the shell completions: ``python -m tests.support.render_manual``."""

from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]

import picwish_watchd.cli
from picwish_watchd import __version__
from picwish_watchd.cli.arguments import build_parser

TEXTS = Path(picwish_watchd.cli.__file__).parent / "texts"
SHELLS = ("bash", "zsh", "fish")
_MANPAGE_DATA = {
    "manual_title": "User Commands",
    "version": __version__,
    "description": "hot folders for PicWish's Advanced Image Enhancer",
    # The page must change with the version, not with the day.
    "date": __version__,
}
_EXTRA_SECTIONS = r"""
.SH FILES
.TP
.I ./picwish-watchd.yaml, $XDG_CONFIG_HOME/picwish-watchd/config.yaml, /etc/picwish-watchd/config.yaml
The configuration file, unless
.B \-c
or
.B $PICWISH_WATCHD_CONFIG
names another one. The first that exists is used.
.TP
.I /var/lib/picwish-watchd/journal.db
The journal (queue, history and ledger), unless the configuration names another file. Never delete it: it knows which
images were paid for.
.SH SIGNALS
.TP
.B SIGTERM, SIGINT
The daemon starts nothing new, lets open requests end for at most 30 seconds, and exits.
A second signal ends it at once.
.TP
.B SIGHUP
The daemon reads configuration and key again. A faulty configuration changes nothing.
"""


def render_texts() -> dict[str, str]:
    """Return file name -> text, rendered from the definition of the command line."""
    page = str(Manpage(build_parser(), _data=dict(_MANPAGE_DATA))).replace(".SH COMMENTS", ".SH EXIT STATUS")
    completions = {f"completion.{shell}": shtab.complete(build_parser(), shell) for shell in SHELLS}
    return {"picwish-watchd.1": page.rstrip() + _EXTRA_SECTIONS, **completions}


if __name__ == "__main__":
    for name, text in render_texts().items():
        (TEXTS / name).write_text(text, "utf-8")
