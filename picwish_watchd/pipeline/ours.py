"""Folders that are ours, or that a rule writes to: nothing there is a new picture."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from picwish_watchd.config import Config, Rule


def spool_folder(journal: Path) -> Path:
    """The daemon's own folder beside its journal."""
    return journal.with_name(journal.name + ".spool")


def forbidden_to(config: "Config", rule: "Rule") -> tuple[Path, ...]:
    """Folders that no link in the rule's inbox may lead into: what is found there would be bought in a circle."""
    written = [folder for each in config.rules for folder in (each.outbox, each.archive, each.failed) if folder]
    others = [each.inbox for each in config.rules if each.name != rule.name]
    return (*written, *others, spool_folder(config.journal))
