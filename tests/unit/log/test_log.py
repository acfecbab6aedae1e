"""The log: one event is one line, whatever its values contain."""

import io
import json
import logging
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.log import setup as log
from picwish_watchd.redaction import register_secret
from tests.support.mounts import frozen_disk, small_disk


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Restore the logging configuration of this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def read_events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def setup_json_log(level: str = "info", *secrets: str) -> io.StringIO:
    stream = io.StringIO()
    for secret in secrets:
        register_secret(secret)
    log.configure_logging(level, "json", stream)
    return stream


def test_an_event_is_one_line_with_event_level_timestamp_and_its_fields() -> None:
    stream = setup_json_log()
    structlog.get_logger().warning("job.held", job=7, rule="scans", path=Path("/in/a.jpg"), ok=True, note=None)
    (event,) = read_events(stream)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "job.held",
        "level": "warning",
        "job": 7,
        "rule": "scans",
        "path": "/in/a.jpg",
        "ok": True,
        "note": None,
    }


def test_libraries_log_through_the_same_pipeline() -> None:
    stream = setup_json_log()
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify %s overflowed", "queue")
    (event,) = read_events(stream)
    assert event.pop("timestamp")
    assert event == {"event": "Inotify queue overflowed", "level": "warning", "logger": "watchdog.observers.inotify_c"}


def test_httpx_logs_no_urls_even_at_level_debug() -> None:
    stream = setup_json_log("debug")
    logging.getLogger("httpx").info("HTTP Request: GET https://host/?signature=x")
    logging.getLogger("httpcore.connection").debug("connect_tcp.started")
    logging.getLogger("watchdog.observers").debug("in-event")
    assert stream.getvalue() == ""
    logging.getLogger("httpx").warning("odd")
    assert [event["event"] for event in read_events(stream)] == ["odd"]


def test_a_message_whose_arguments_do_not_fit_is_logged_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = setup_json_log()
    # The handlers of pytest raise errors that the daemon's own must not raise.
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[-1:])
    logging.getLogger("library").error("%d files", "many")
    logging.getLogger("library").error("%s and %s", "one")
    assert [event["event"] for event in read_events(stream)] == ["%d files ('many',)", "%s and %s ('one',)"]


def test_the_level_holds_for_all_and_can_be_changed() -> None:
    stream = setup_json_log("warning")
    ours, theirs = structlog.get_logger(), logging.getLogger("watchdog")
    ours.info("a")
    theirs.info("b")
    log.set_level("info")
    ours.info("c")
    theirs.info("d")
    log.set_level("error")
    ours.warning("e")
    theirs.warning("f")
    assert [event["event"] for event in read_events(stream)] == ["c", "d"]


def test_a_second_setup_replaces_the_first() -> None:
    first, second = setup_json_log(), setup_json_log()
    structlog.get_logger().info("a")
    assert (first.getvalue(), len(read_events(second))) == ("", 1)


HOSTILE_NAME = "a\x1b[31mred\x1b[0m\nlevel=critical\r\x9b2J\x7f\u2028\u202egpj\udcff.jpg"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_hostile_file_name_stays_on_its_line_and_controls_no_terminal(format: str) -> None:
    stream = io.StringIO()
    log.configure_logging("info", format, stream)
    structlog.get_logger().info(
        "found",
        path=Path(HOSTILE_NAME),
        nested=[{HOSTILE_NAME: HOSTILE_NAME}],
        raw=HOSTILE_NAME.encode(errors="replace"),
    )
    logging.getLogger("library").warning(HOSTILE_NAME)
    assert stream.getvalue().count("\n") == 2
    assert stream.getvalue().replace("\n", "").isprintable()
    assert "\\x1b[31mred" in stream.getvalue()
    assert "\\udcff.jpg" in stream.getvalue()


@pytest.mark.untraced
@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_becomes_one_line_of_json(text: str) -> None:
    stream = setup_json_log()
    structlog.get_logger().info("found", path=text)
    assert len(stream.getvalue().splitlines()) == 1
    stream.getvalue().encode()
    assert read_events(stream)[0]["path"].isprintable()


def test_the_key_is_starred_out_wherever_it_occurs() -> None:
    stream = setup_json_log("debug", "s3cret", "")
    logger = structlog.get_logger()
    logger.info("key s3cret", header="X-API-KEY: s3cret", deep={"s3cret": ["s3cret"]}, thing=Path("/s3cret"))
    try:
        raise ValueError("bad s3cret")
    except ValueError:
        logger.exception("failed")
    logging.getLogger("library").error("sent %s", "s3cret")
    assert len(read_events(stream)) == 3
    assert "s3cret" not in stream.getvalue()
    assert read_events(stream)[0]["header"] == "X-API-KEY: ***"


def test_an_exception_is_one_field_and_no_traceback_above_debug() -> None:
    stream = setup_json_log()
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        structlog.get_logger().exception("a")
        structlog.get_logger().error("b", exc_info=error)
        structlog.get_logger().warning("c", error=error)
        logging.getLogger("library").exception("d")
    events = read_events(stream)
    assert {event["error"] for event in events} == {"OSError: [Errno 28] No space left on device"}
    assert all("traceback" not in event and "exc_info" not in event for event in events)


def test_a_traceback_is_one_more_field_at_level_debug() -> None:
    stream = setup_json_log("debug")
    try:
        raise KeyError
    except KeyError:
        structlog.get_logger().exception("a")
    (event,) = read_events(stream)
    assert event["error"] == "KeyError"
    assert event["traceback"].startswith("Traceback (most recent call last):\\n")


def test_a_group_of_exceptions_names_all_of_them() -> None:
    stream = setup_json_log()
    structlog.get_logger().error("a", exc_info=ExceptionGroup("tasks", [ValueError("x"), OSError("y")]))
    assert read_events(stream)[0]["error"] == "tasks: ValueError: x; OSError: y"


def test_exc_info_without_an_exception_is_nothing() -> None:
    stream = setup_json_log()
    structlog.get_logger().error("a", exc_info=True)
    structlog.get_logger().error("b", exc_info=None)
    assert [list(event) for event in read_events(stream)] == [["timestamp", "level", "event"]] * 2


def test_numbers_that_json_does_not_know_become_text() -> None:
    stream = setup_json_log()
    structlog.get_logger().info("a", nan=float("nan"), inf=float("inf"), fine=0.5, them=(1, frozenset({2})))
    (event,) = read_events(stream)
    assert (event["nan"], event["inf"], event["fine"], event["them"]) == ("nan", "inf", 0.5, [1, [2]])


def test_context_variables_are_fields() -> None:
    stream = setup_json_log()
    with structlog.contextvars.bound_contextvars(job=5):
        structlog.get_logger().info("a")
    assert read_events(stream)[0]["job"] == 5


class _BrokenStream(io.StringIO):
    def write(self, text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_broken_or_closed_stream_does_not_reach_the_program(capfd: pytest.CaptureFixture[str]) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (_BrokenStream(), closed):
        for format in ("auto", "json", "console"):
            log.configure_logging("info", format, stream)
            structlog.get_logger().info("a")
            logging.getLogger("library").warning("b")
    assert capfd.readouterr() == ("", "")


def test_a_stream_that_knows_only_ascii_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    for format in ("json", "console"):
        log.configure_logging("info", format, stream)
        structlog.get_logger().info("a", path="Müller")
    assert raw.getvalue().count(b"M\\\\xfcller") == 1
    assert raw.getvalue().count(b"ller") == 2


def test_auto_is_console_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert json.loads(log_to_terminal("json"))["event"] == "job.done"
    assert "\x1b[" in log_to_terminal("auto")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in log_to_terminal("auto")
    stream = io.StringIO()
    log.configure_logging("info", "auto", stream)
    structlog.get_logger().info("job.done")
    assert read_events(stream)[0]["event"] == "job.done"


def log_to_terminal(format: str) -> str:
    master, slave = pty.openpty()
    with open(slave, "w", encoding="utf-8") as terminal:
        log.configure_logging("info", format, terminal)
        structlog.get_logger().info("job.done", job=1)
        output = os.read(master, 4096).decode()
    os.close(master)
    assert "job.done" in output
    return output


def test_console_without_a_terminal_is_plain() -> None:
    stream = io.StringIO()
    log.configure_logging("info", "console", stream)
    structlog.get_logger().info("job.done", path="/in/a b.jpg")
    assert "\x1b" not in stream.getvalue()
    assert "[info     ] job.done" in stream.getvalue()
    assert "path='/in/a b.jpg'" in stream.getvalue()


def test_lines_to_the_journal_of_systemd_carry_their_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal"
    with open(file, "w", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log.configure_logging("debug", "auto", stream)
        logger = structlog.get_logger()
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, level)("a")
        logging.getLogger("library").log(25, "b")
        log.drain_logs()
    assert [line[:4] for line in file.read_text().splitlines()] == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{", "<5>{"]


def test_a_stream_that_is_not_the_journal_gets_no_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    file = tmp_path / "log"
    with open(file, "w", encoding="utf-8") as stream:
        log.configure_logging("info", "auto", stream)
        structlog.get_logger().info("a")
        log.drain_logs()
    assert file.read_text().startswith("{")


def test_a_wrong_level_is_a_bug_and_raises() -> None:
    with pytest.raises(KeyError):
        log.configure_logging("loud", "json", sys.stderr)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stalled_reader_blocks_nothing_and_gets_the_number_of_lost_lines(blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    # More lines than the buffer, the lines in progress and a pipe can hold.
    lines = 24_000
    with os.fdopen(writing, "w") as stream:
        log.configure_logging("info", "json", stream)
        logger = structlog.get_logger()
        for number in range(lines):
            logger.info("found", number=number)
        received: list[str] = []
        with os.fdopen(reading) as reader:
            for line in reader:
                received.append(line)
                if '"log.lost"' in line:
                    break
    events = [json.loads(line) for line in received]
    numbers = [event["number"] for event in events[:-1]]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + events[-1]["lines"] == lines


def test_a_log_file_on_a_stalled_disk_blocks_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, open(disk / "log", "w", encoding="utf-8") as stream:
        log.configure_logging("info", "json", stream)
        with frozen_disk(disk) as waited:
            structlog.get_logger().info("found")
            assert not waited.is_set()
        log.drain_logs()
        assert json.loads((disk / "log").read_text())["event"] == "found"


def test_draining_waits_for_the_lines_that_are_on_their_way() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb", buffering=0) as reader:
        log.configure_logging("info", "json", stream)
        structlog.get_logger().info("found")
        log.drain_logs()
        os.set_blocking(reading, False)
        assert b"found" in (reader.read() or b"")
