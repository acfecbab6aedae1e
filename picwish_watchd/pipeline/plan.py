"""What the inboxes hold that is not done, and what it would cost. Nothing is submitted or written down."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from picwish_watchd.config import Config, Rule
from picwish_watchd.files.reading import OpenFile, open_file, sha256_of
from picwish_watchd.files.verdicts import Changed, Gone, NotWhole, Unreadable
from picwish_watchd.files.walk import Away, NameFilter, Walker
from picwish_watchd.job import UNFINISHED, Job, Stamp, State
from picwish_watchd.journal import JournalReader
from picwish_watchd.pipeline.context import PRICES
from picwish_watchd.pipeline.desks import forbidden_to
from picwish_watchd.pipeline.intake import is_known, new_job, without_own
from picwish_watchd.pipeline.judge import judge


@dataclass(slots=True)
class Ahead:
    """What lies ahead of one rule, in numbers of files; queued jobs count."""

    rule: str
    images: int = 0  #: to be paid for
    copies: int = 0  #: delivered from a result that is, or will be, there; and results of ours that came back
    rejected: int = 0  #: would be refused as they stand
    credits: int = 0  #: what the images cost
    not_whole: int = 0  #: still being written: not judged yet
    unreadable: int = 0  #: files and subfolders that cannot be read
    held: int = 0  #: jobs that wait for a person, and new copies of them
    under_way: int = 0  #: submitted already: nothing more is paid for them
    away: str | None = None  #: why the inbox could not be looked at
    contents: set[str] = field(default_factory=set)  #: SHA-256 of what is paid for, or going to be


def plan(config: Config, journal: JournalReader, now: float) -> list[Ahead]:
    """One for each rule of the configuration. ``now`` is Unix seconds.

    Files whose stamp the journal knows are not read.
    """
    return [_of_rule(config, journal, rule, now) for rule in config.rules]


def _of_rule(config: Config, journal: JournalReader, rule: Rule, now: float) -> Ahead:
    ahead = Ahead(rule.name)
    for job in journal.jobs(states=(*UNFINISHED, State.HELD), rule=rule.name, oldest_first=True):
        if job.state is State.HELD:
            ahead.held += 1
        elif job.state is not State.QUEUED:
            ahead.under_way += 1
            ahead.contents.add(job.sha256 or "")
        else:
            _count(journal, rule, ahead, job.sha256, job)
    walker = Walker(
        os.fspath(rule.inbox),
        NameFilter(rule.include, rule.exclude),
        recursive=rule.recursive,
        follow_symlinks=rule.follow_symlinks,
        forbidden=map(os.fspath, forbidden_to(config, rule)),
    )
    walker.learn(journal.known(rule.name))
    found = walker.walk(full=True)
    if isinstance(found, Away):
        ahead.away = found.reason
        return ahead
    for sighting in found:
        _look(config, journal, rule, ahead, rule.inbox / sighting.relative, sighting.stamp, now)
    ahead.unreadable += len(walker.unread)
    return ahead


def _look(
    config: Config, journal: JournalReader, rule: Rule, ahead: Ahead, path: Path, stamp: Stamp, now: float
) -> None:
    final = now - stamp.mtime_ns / 1e9 >= max(rule.settle, rule.settle_timeout)
    verdict = judge(path, config.api, rule, final=final)
    match verdict:
        case Gone():
            return
        case NotWhole() | Changed():
            ahead.not_whole += 1
            return
        case Unreadable():
            ahead.unreadable += 1
            return
    [new] = without_own([new_job(rule, path, stamp, verdict)], journal)
    if is_known(journal.last_of(path), new, config.rules):
        return
    if new.problem is not None:
        ahead.rejected += 1
    elif new.result_of is not None:
        ahead.copies += 1
    else:
        _count(journal, rule, ahead, new.sha256, None)


def _count(journal: JournalReader, rule: Rule, ahead: Ahead, sha256: str | None, job: Job | None) -> None:
    """One image, of a queued job or not yet one: paid for, a copy, or held with its first."""
    if sha256 is not None:
        if sha256 in ahead.contents:
            ahead.copies += 1
            return
        ahead.contents.add(sha256)
        first = first_of(journal, sha256, rule, job)
        if first is not None and first.state is not State.HELD:
            ahead.copies += 1
            return
        if first is not None and not (job and job.pay_again):
            ahead.held += 1
            return
    ahead.images += 1
    ahead.credits += PRICES[rule.type]


def first_of(journal: JournalReader, sha256: str, rule: Rule, job: Job | None = None) -> Job | None:
    """The earlier job that an image of this content follows: its result stands unchanged, or it is under way or held.

    ``job`` is its own job, if it has one.
    """
    for other in journal.contents(sha256, rule.name, rule.type):
        if job is not None and (other.id == job.id or (other.state is not State.DONE and other.id > job.id)):
            continue
        if other.state is not State.DONE or stands(other):
            return other
    return None


def stands(job: Job) -> bool:
    """Whether the job's result lies in the outbox as it was delivered; it is read."""
    if job.output is None or job.result is None:
        return False
    opened = open_file(job.output)
    if not isinstance(opened, OpenFile):
        return False
    with opened:
        try:
            return opened.size == job.result.size and sha256_of(opened) == job.result.sha256
        except OSError:
            return False
