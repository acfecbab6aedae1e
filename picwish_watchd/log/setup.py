"""Set up the log: structured events, one line each, as JSON or for a console."""

import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from picwish_watchd.log.stream import LogStream
from picwish_watchd.redaction import redact

#: Least level of noisy libraries. httpx logs URLs, which can be secret; Pillow and watchdog log each chunk and event.
_MIN_LEVELS = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "PIL": logging.INFO,
    "watchdog": logging.INFO,
    "asyncio": logging.INFO,
    # The library apprise logs URLs with their passwords. So do urllib3 and requests, which only apprise uses.
    "apprise": logging.CRITICAL,
    "urllib3": logging.CRITICAL,
    "requests": logging.CRITICAL,
}
#: Syslog priority by level. A line that begins with <N> has that priority in systemd's journal (sd-daemon(3)).
_SYSLOG_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_ENCODER = json.JSONEncoder(ensure_ascii=False)
#: The keys that each line begins with, in this order.
_LEADING_KEYS = ("timestamp", "level", "event")


def configure_logging(level: str, log_format: str, stream: TextIO) -> None:
    """Send all logging to ``stream``. A second call replaces the first.

    ``level`` is debug, info, warning or error. ``log_format`` is console, json, or auto: console if ``stream`` is a
    terminal. Each event has ``event``, ``level`` and ``timestamp`` (ISO 8601, UTC). Control characters and undecodable
    bytes in values are escaped, and secrets are redacted. An exception becomes the field ``error``, and at level debug
    also the field ``traceback``. JSON lines to systemd's journal carry their priority. If the stream is closed, broken
    or not read, lines are lost and nothing else happens (`LogStream`).
    """
    terminal = _is_terminal(stream)
    console = log_format == "console" or (log_format == "auto" and terminal)
    leading: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    trailing: list[Processor] = [
        _convert_exception,
        partial(_sanitize_event, _ValueSanitizer(_is_unicode(stream))),
        _build_console_renderer(terminal) if console else partial(_render_json, _is_journal(stream)),
    ]
    root = logging.getLogger()
    old_handlers = [handler for handler in root.handlers if isinstance(handler, _LineHandler)]
    reusable = [handler.stream for handler in old_handlers if handler.stream.target is stream]
    line_handler = _LineHandler(reusable[0] if reusable else LogStream(stream, _warn_lost_lines))
    line_handler.addFilter(_repair_message)
    line_handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_add_logger_name, *leading],
            processors=[ProcessorFormatter.remove_processors_meta, *trailing],
        )
    )
    root.handlers = [handler for handler in root.handlers if handler not in old_handlers] + [line_handler]
    # Our own events skip logging's records, which would take half of the time that a new file costs.
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *leading, *trailing],
        logger_factory=lambda *_names: _EventLogger(line_handler.stream),
    )
    set_level(level)


def set_level(level: str) -> None:
    """Log events of ``level`` (debug, info, warning or error) and above from now on."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(threshold)
    for name, floor in _MIN_LEVELS.items():
        logging.getLogger(name).setLevel(max(floor, threshold))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))


def drain_logs() -> None:
    """Wait until all lines are written, 2 s at most."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LineHandler):
            handler.stream.drain()


class _LineHandler(logging.StreamHandler[LogStream]):
    """Passes the lines of libraries to the log stream and ignores errors."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Do nothing: a closed terminal must not end the daemon, and there is no other place to report it."""


class _EventLogger:
    """structlog's output: writes the finished line of one of our own events."""

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = self._write

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")


def _warn_lost_lines(lines: int) -> None:
    structlog.get_logger().warning("log.lost", lines=lines, reason="nothing read the log, so its queue was full")


def _repair_message(record: logging.LogRecord) -> bool:
    """Repair a library's message whose arguments do not fit its format; the event would be lost otherwise."""
    try:
        record.getMessage()
    except (TypeError, ValueError, KeyError):
        record.msg, record.args = f"{record.msg} {record.args!r}", None
    return True


def _add_logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["logger"] = event["_record"].name
    return event


def _convert_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event.setdefault("error", error)
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            event["traceback"] = "".join(traceback.format_exception(error))
    return event


@dataclass(frozen=True, slots=True)
class _ValueSanitizer:
    """Converts values to JSON types, redacts secrets and escapes control characters."""

    #: Whether the stream can encode characters outside ASCII.
    allows_unicode: bool

    def sanitize_value(self, value: object) -> Any:
        """Return ``value`` as a JSON type; unknown types become text."""
        # The most frequent types first.
        if isinstance(value, str | PurePath):
            return self.sanitize_text(str(value))
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return {self.sanitize_text(str(key)): self.sanitize_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.sanitize_value(item) for item in value]
        return self.sanitize_text(_describe_exception(value) if isinstance(value, BaseException) else str(value))

    def sanitize_text(self, text: str) -> str:
        """Return ``text`` without secrets, with control characters and what the stream cannot encode escaped."""
        text = redact(text)
        if text.isprintable() and (self.allows_unicode or text.isascii()):
            return text
        return "".join(map(self._escape_character, text))

    def _escape_character(self, character: str) -> str:
        if character.isprintable() and (self.allows_unicode or character.isascii()):
            return character
        return character.encode("unicode_escape").decode()


def _sanitize_event(sanitizer: _ValueSanitizer, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        key: sanitizer.sanitize_value(event[key])
        for key in (*_LEADING_KEYS, *(key for key in event if key not in _LEADING_KEYS))
    }


def _describe_exception(error: BaseException) -> str:
    """Return ``TypeName: message``; for an exception group, its message and a list of its exceptions."""
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message}: {'; '.join(map(_describe_exception, error.exceptions))}"
    message = str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _build_console_renderer(terminal: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        # The convention of no-color.org.
        colors=terminal and not os.environ.get("NO_COLOR"),
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )


def _render_json(journal: bool, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line = _ENCODER.encode(event)
    return f"<{_SYSLOG_PRIORITIES.get(event['level'], 5)}>{line}" if journal else line


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        # The stream is closed.
        return False


def _is_journal(stream: TextIO) -> bool:
    """Return whether systemd connected the stream to its journal (systemd.exec(5), ``$JOURNAL_STREAM``)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _is_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower() in ("utf-8", "utf8")
