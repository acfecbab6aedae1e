"""When `status` uses the configuration that a running daemon reports, and when it loads the file itself."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd import __version__
from picwish_watchd.cli.journal_views import open_summary_and_status
from picwish_watchd.cli.main import main
from picwish_watchd.clock import Clock
from picwish_watchd.config.fingerprint import read_fingerprint
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.summary import ConfigSummary, summary_from_json
from picwish_watchd.errors import ConfigError, JournalError
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.writer import Journal

_CONFIG_TEXT = """\
api: {qps: 3}
journal: state/journal.db
rules:
  - {name: scans, inbox: in, outbox: out}
"""
# A QPS that only the daemon reports, which shows where a summary came from.
_DAEMON_QPS = 77.0


class StatusHarness:
    """A configuration, and a daemon on its journal that reports another QPS than the file has."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "watchd.yaml"
        self.path = folder / "state" / "journal.db"
        self.journal = Journal.open_for_writing(self.path, Clock())
        self.lock = DaemonLock(self.path)
        self.lock.acquire()
        self.set_loaded_config(_CONFIG_TEXT)

    def set_loaded_config(self, text: str) -> None:
        """Pretend that the daemon has loaded this configuration."""
        self.file.write_text(text)
        outline = load_config(self.file, {}).summary_to_json()
        assert outline is not None
        self.report = {"pid": os.getpid(), "version": __version__, "config": {**outline, "qps": _DAEMON_QPS}}
        self.publish_report()

    def publish_report(self, **changed: Any) -> None:
        self.journal.publish_report(json.dumps({**self.report, **changed}))

    def load_summary(self, file: Path | None = None) -> ConfigSummary:
        outline, reader = open_summary_and_status(argparse.Namespace(config=file or self.file))
        reader.close()
        return outline


@pytest.fixture
def status_harness(tmp_path: Path) -> Iterator[StatusHarness]:
    harness = StatusHarness(tmp_path)
    yield harness
    harness.lock.release()
    harness.journal.close()


def test_the_running_daemons_summary_is_used_for_the_file_that_it_read(status_harness: StatusHarness) -> None:
    assert status_harness.load_summary().qps == _DAEMON_QPS
    assert [rule.name for rule in status_harness.load_summary().rules] == ["scans"]


def test_a_file_that_changed_by_one_byte_is_loaded_again(status_harness: StatusHarness) -> None:
    status_harness.file.write_text(_CONFIG_TEXT + "\n")
    assert status_harness.load_summary().qps == 3
    status_harness.file.write_text(_CONFIG_TEXT.replace("qps: 3", "qps: 0"))
    with pytest.raises(ConfigError, match=r"watchd.yaml:1: api.qps: found 0"):
        status_harness.load_summary()
    status_harness.file.write_text(_CONFIG_TEXT)
    assert status_harness.load_summary().qps == _DAEMON_QPS


def test_the_same_bytes_at_another_path_are_loaded_again(status_harness: StatusHarness) -> None:
    copy = status_harness.file.with_name("copy.yaml")
    copy.write_bytes(status_harness.file.read_bytes())
    assert status_harness.load_summary(copy).qps == 3


def test_without_a_running_daemon_the_file_is_loaded(status_harness: StatusHarness) -> None:
    status_harness.lock.release()
    assert status_harness.load_summary().qps == 3


@pytest.mark.parametrize("changed", [{"pid": 1}, {"version": "0.0.9"}, {"config": None}])
def test_the_report_of_another_daemon_or_version_is_not_used(
    status_harness: StatusHarness, changed: dict[str, Any]
) -> None:
    status_harness.publish_report(**changed)
    assert status_harness.load_summary().qps == 3


def test_a_report_without_a_summary_is_ignored(status_harness: StatusHarness) -> None:
    del status_harness.report["config"]
    status_harness.publish_report()
    assert status_harness.load_summary().qps == 3


def test_configuration_errors_are_reported_before_journal_errors(status_harness: StatusHarness) -> None:
    other = status_harness.path.with_name("other")
    other.write_bytes(b"no journal at all" * 100)
    other.replace(status_harness.path)
    with pytest.raises(JournalError):
        status_harness.load_summary()
    status_harness.file.write_text(_CONFIG_TEXT + "typo: 1\n")
    with pytest.raises(ConfigError, match="typo"):
        status_harness.load_summary()


def test_the_published_summary_is_that_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "watchd.yaml"
    file.write_text(
        "api: {qps: 0.5, max_pending: 7}\nbudget: {per_day: 40, per_month: 900}\n"
        "rules:\n  - {name: a, inbox: 'Müller ☃', outbox: out, type: 1}\n"
        "  - {name: b, inbox: b, outbox: out, sync: 1}\n"
    )
    config, fingerprint = load_config(file, {}), read_fingerprint(file)
    assert fingerprint is not None
    assert config.journal in fingerprint.journal_candidates
    assert summary_from_json(json.loads(json.dumps(config.summary_to_json())), fingerprint) == config.summary()


@pytest.mark.parametrize("inbox", ["~/in", '"${NAS}/in"', '"\\x7e/in"', '"\\x24{NAS}/in"'])
def test_a_file_with_other_meaning_elsewhere_has_no_summary(tmp_path: Path, inbox: str) -> None:
    file = tmp_path / "watchd.yaml"
    file.write_text(f"rules:\n  - {{name: a, inbox: {inbox}, outbox: out}}\n")
    assert load_config(file, {"HOME": "/home/ada", "NAS": "/srv/nas"}).summary_to_json() is None


@pytest.mark.parametrize(
    "line",
    [
        "journal: state/journal.db",
        "journal:   state/../state/journal.db  # on the local disk",
        'journal: "state/journal.db"',
        "'journal' : './state/journal.db'",
        "# journal: somewhere/else.db\njournal: state/journal.db",
    ],
)
def test_the_journal_is_found_without_reading_yaml_however_it_is_spelt(
    status_harness: StatusHarness, line: str
) -> None:
    status_harness.set_loaded_config(_CONFIG_TEXT.replace("journal: state/journal.db", line))
    assert status_harness.load_summary().qps == _DAEMON_QPS


def test_the_journal_is_found_in_json(status_harness: StatusHarness) -> None:
    rule = {"name": "scans", "inbox": "in", "outbox": "out"}
    status_harness.set_loaded_config(
        json.dumps({"api": {"qps": 3}, "journal": str(status_harness.path), "rules": [rule]})
    )
    assert status_harness.load_summary().qps == _DAEMON_QPS


@pytest.mark.parametrize("line", ["journal: &here state/journal.db", 'journal: "state/\\x6aournal.db"'])
def test_an_unguessable_journal_path_is_found_by_parsing_the_file(status_harness: StatusHarness, line: str) -> None:
    status_harness.set_loaded_config(_CONFIG_TEXT.replace("journal: state/journal.db", line))
    assert status_harness.load_summary().qps == 3


def test_a_daemon_that_is_only_mentioned_in_the_file_is_not_used(status_harness: StatusHarness) -> None:
    status_harness.file.write_text(f"# journal: {status_harness.path}\n" + _CONFIG_TEXT.replace("state/", "elsewhere/"))
    assert status_harness.load_summary().qps == 3


@pytest.mark.parametrize(
    "journal", ["a\0b", "..", "x" * 5000, '" "', "a.db/b.db", "~", "${HOME}/j.db"], ids=lambda text: text[:9]
)
def test_a_guess_that_can_be_no_journal_does_no_harm(status_harness: StatusHarness, journal: str) -> None:
    status_harness.file.write_text(_CONFIG_TEXT.replace("state/journal.db", journal))
    with contextlib.suppress(ConfigError, JournalError):
        assert status_harness.load_summary().qps == 3


@pytest.mark.parametrize("text", ["journal: 7\n", "journal: state/journal.db\njournal: b\n", "", "a: [", "- a list\n"])
def test_a_faulty_file_is_refused_beside_a_daemon_in_the_same_words(status_harness: StatusHarness, text: str) -> None:
    status_harness.file.write_text(text)
    with pytest.raises(ConfigError) as loaded:
        load_config(status_harness.file, {})
    with pytest.raises(ConfigError) as outlined_:
        status_harness.load_summary()
    assert outlined_.value.message == loaded.value.message


def test_the_root_folder_is_never_guessed_as_journal(tmp_path: Path) -> None:
    (tmp_path / "watchd.yaml").write_text("journal: /\n")
    fingerprint = read_fingerprint(tmp_path / "watchd.yaml")
    assert fingerprint is not None
    assert fingerprint.journal_candidates == ()


def test_a_file_that_cannot_be_read_is_refused_as_ever(status_harness: StatusHarness) -> None:
    status_harness.file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        status_harness.load_summary()
    status_harness.file.mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        status_harness.load_summary()


def test_the_reason_of_a_refused_reload_is_reported_with_either_source(
    status_harness: StatusHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    status_harness.publish_report(refused="reload refused, the old configuration is in force (no API key)")
    for text, inboxes in ((_CONFIG_TEXT, ["scans"]), (_CONFIG_TEXT.replace("scans", "photos"), ["photos"])):
        status_harness.file.write_text(text)
        assert main(["status", "--json", "-c", str(status_harness.file)]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["refused"] == "reload refused, the old configuration is in force (no API key)"
        assert [rule["name"] for rule in facts["rules"]] == inboxes
