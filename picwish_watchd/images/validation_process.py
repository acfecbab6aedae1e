"""Validate files in a separate process.

It runs on another core beside the daemon, which matters in a flood of files. It also decodes images whose structure is
unclear: if untrusted bytes crash the decoder, the daemon continues.

The two exchange lines of JSON, not pickles: an attacker who took over the process with a crafted image could otherwise
take over the daemon, which has the API key. The answers are not trusted either: a job's bytes are hashed again before
they are sent.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

from picwish_watchd import __version__
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import ImageLimits, ValidImage
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.images.validate import ValidationRequest, ValidationResult, validate_request
from picwish_watchd.job import ErrorCode, Problem, Stamp
from picwish_watchd.wording import printable_path

#: Seconds of validation after which a batch is answered.
_BATCH_SECONDS = 0.25
#: Bytes of address space; a decoded image has at most some 17 million pixels (`ImageLimits.max_side`).
_MAX_MEMORY = 2**31
#: Seconds of CPU time for one answer.
_MAX_CPU_SECONDS = 60
#: Seconds until the next attempt after the process could not be started.
_RESTART_DELAY = 60.0
#: Seconds without an answer. A process that is stopped by SIGSTOP is ended then; one that only waits is not.
_SILENCE_TIMEOUT = 60.0
#: Exit codes of a process stopped together with the service: no fault of the image.
_STOP_EXIT_CODES = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
#: The environment variables that the process gets: what an interpreter may need to start, and no keys.
_ENV_ALLOWLIST = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
#: The version is in it because an update may have replaced the program while an older daemon runs.
_HANDSHAKE = f"ready {__version__}\n".encode()
#: Bytes of one line of results; those to 64 requests have some 20 kB.
_LINE_MAX = 2**20
# -P keeps the current folder out of sys.path. The package may be in just that folder, so its path is an argument.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from picwish_watchd.images.validation_process import serve; serve()"
)


def validate_requests(requests: Sequence[ValidationRequest]) -> list[ValidationResult]:
    """Return the verdicts on the first files: at least one, and as many as fit into `_BATCH_SECONDS`."""
    results: list[ValidationResult] = []
    deadline = time.monotonic() + _BATCH_SECONDS
    for request in requests:
        results.append(validate_request(request))
        if time.monotonic() > deadline:
            break
    return results


class ValidationProcess:
    """A process that validates files, started at the first request and again after a crash.

    For worker threads; it answers one request at a time. The process ends at `close`, and when the daemon has ended.
    """

    def __init__(self, *, patience: float = 3.0) -> None:
        """``patience``: seconds that another rule's request may take before its folder counts as hung."""
        self._patience = patience
        self._request_lock = threading.Lock()
        # When the current request was made (monotonic seconds).
        self._requested_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._last_used = 0.0
        self._not_before = 0.0
        self._closed = False
        self._start_lock = threading.Lock()
        # A second process for other rules while a folder hangs.
        self._spare: ValidationProcess | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._request_lock.locked()

    def validate_batch(self, requests: Sequence[ValidationRequest]) -> list[ValidationResult]:
        """Return the verdicts of `validate_requests`, from the process or else from this thread.

        This thread validates if the process is busy, cannot be started or crashed. Raises nothing. Pass no
        ``final`` request: only those are decoded, and no decoder may run in this thread.
        """
        if self._request_lock.acquire(blocking=False):
            results = self._request(requests)
            if isinstance(results, list):
                return results
        return validate_requests(requests)

    def validate_final(self, request: ValidationRequest, *, again: bool = True) -> ValidationResult:
        """Return the verdict on a ``final`` request, which may decode. Raises nothing.

        A file on which two processes crash is `Rejected`.
        """
        if not self._request_lock.acquire(timeout=max(0.0, self._requested_at + self._patience - time.monotonic())):
            return self._get_spare().validate_final(request)
        results = self._request([request])
        if isinstance(results, list):
            return results[0]
        if results is None:
            return validate_request(request)
        if results in _STOP_EXIT_CODES:
            name = printable_path(request.path.name)
            return Incomplete(f"{name} could not be decoded: the decoding process was stopped", request.stamp)
        # The process may have ended for another reason, even before this request.
        if again:
            return self.validate_final(request, again=False)
        name = printable_path(request.path.name)
        text = f"{name} is corrupt: the decoder crashed on it; copy or export it again"
        return Rejected(Problem(ErrorCode.CORRUPT, text), request.stamp)

    def stop_if_idle(self, after: float) -> None:
        """End the process if there was no request for ``after`` seconds: it uses some 30 MB."""
        if self._spare is not None:
            self._spare.stop_if_idle(after)
        if (
            self._process is not None
            and time.monotonic() - self._last_used > after
            and self._request_lock.acquire(blocking=False)
        ):
            process, self._process = self._process, None
            try:
                _kill_and_wait(process)
            finally:
                self._request_lock.release()

    def close(self) -> None:
        """End the process at once and start no other; do not wait for a process that hangs."""
        with self._start_lock:
            self._closed = True
            process, self._process = self._process, None
            if self._spare is not None:
                self._spare.close()
        if process is None:
            return
        process.kill()
        if self._request_lock.acquire(blocking=False):
            try:
                _kill_and_wait(process)
            finally:
                self._request_lock.release()
        # If the lock is taken, the requesting thread reaps the process. It may not die while it waits for a dead mount,
        # and its pipe cannot be closed while a thread reads from it.

    def _get_spare(self) -> "ValidationProcess":
        with self._start_lock:
            if self._spare is None:
                self._spare = ValidationProcess(patience=self._patience)
                if self._closed:
                    self._spare.close()
            return self._spare

    def _request(self, requests: Sequence[ValidationRequest]) -> list[ValidationResult] | int | None:
        """Return the verdicts, or the exit code of a process that crashed, or None if none can be started.

        The caller holds `_request_lock`; this releases it.
        """
        try:
            self._requested_at = time.monotonic()
            process = self._process or self._start()
            if not isinstance(process, subprocess.Popen):
                return process
            results = _exchange(process, requests)
            self._last_used = time.monotonic()
            closed = self._process is not process
            if results and not closed:
                return results
            self._process, code = None, _kill_and_wait(process)
            return results or (-signal.SIGTERM if closed else code)
        finally:
            self._request_lock.release()

    def _start(self) -> "subprocess.Popen[bytes] | int | None":
        """Start a process; return it, or None if that is not possible now, or -SIGTERM after `close`."""
        if self._closed or time.monotonic() < self._not_before:
            return -signal.SIGTERM if self._closed else None
        try:
            process = _spawn()
        except OSError:
            process = None
        with self._start_lock:
            closed, self._process = self._closed, None if self._closed else process
        if process is not None and not closed and _read_line(process) == _HANDSHAKE:
            return process
        self._process, self._not_before = None, time.monotonic() + _RESTART_DELAY
        if process is not None:
            _kill_and_wait(process)
        return -signal.SIGTERM if self._closed else None


def serve() -> None:
    """Run the process: read a line of requests from stdin, write a line of verdicts to stdout, until stdin ends."""
    _limit_resource(resource.RLIMIT_CORE, 0)
    _limit_resource(resource.RLIMIT_AS, _MAX_MEMORY)
    with suppress(BrokenPipeError):
        _write_output(_HANDSHAKE)
        while line := sys.stdin.buffer.readline():
            _limit_resource(resource.RLIMIT_CPU, int(time.process_time()) + _MAX_CPU_SECONDS)
            _write_output(
                _encode_line(
                    [_pack(each) for each in validate_requests([_unpack_request(each) for each in json.loads(line)])]
                )
            )


def _write_output(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _limit_resource(what: int, most: int) -> None:
    """Limit this process (setrlimit(2)), unless its hard limit is lower already."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _spawn() -> "subprocess.Popen[bytes]":
    """Start the interpreter with `serve`. Raises OSError if no process can be started."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and program
        [sys.executable or "", "-P", "-c", _PROGRAM, str(Path(__file__).parents[2])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={name: os.environ[name] for name in _ENV_ALLOWLIST if name in os.environ},
    )


def _exchange(process: "subprocess.Popen[bytes]", requests: Sequence[ValidationRequest]) -> list[ValidationResult]:
    """Send the requests and return the verdicts; an empty list if the process is gone or its answer is invalid."""
    assert process.stdin is not None
    try:
        process.stdin.write(_encode_line([_pack_request(each) for each in requests]))
        process.stdin.flush()
        return _parse_results(_read_line(process), len(requests))
    except (OSError, ValueError, RecursionError):
        return []


def _read_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    try:
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while not poll.poll(_SILENCE_TIMEOUT * 1000):
            _terminate_if_stopped(process)
        return process.stdout.readline(_LINE_MAX)
    except (OSError, ValueError):
        # The pipe was closed.
        return b""


def _terminate_if_stopped(process: "subprocess.Popen[bytes]") -> None:
    """End a process that somebody has stopped (SIGSTOP). One that only waits for a mount is left alone."""
    with suppress(OSError, IndexError):
        if Path(f"/proc/{process.pid}/stat").read_text("utf-8", "replace").rpartition(") ")[2][0] in "Tt":
            process.terminate()
            process.send_signal(signal.SIGCONT)


def _kill_and_wait(process: "subprocess.Popen[bytes]") -> int | None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        return process.wait(1.0)
    return None


def _encode_line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _pack_request(request: ValidationRequest) -> list[object]:
    stamp, limits = request.stamp, request.limits
    return [
        # As bytes: the process may run in another locale.
        os.fsencode(request.path).decode("latin-1"),
        stamp.inode,
        stamp.size,
        stamp.mtime_ns,
        limits.max_bytes,
        limits.max_side,
        limits.allow_downscale,
        request.follow_symlinks,
        request.final,
    ]


def _unpack_request(packed: list[Any]) -> ValidationRequest:
    path, inode, size, mtime_ns, max_bytes, max_side, fitting, follow_symlinks, final = packed
    limits = ImageLimits(max_bytes, max_side, fitting)
    return ValidationRequest(
        Path(os.fsdecode(path.encode("latin-1"))), Stamp(inode, size, mtime_ns), limits, follow_symlinks, final
    )


def _pack(value: Any) -> Any:
    if type(value).__name__ not in _PACKABLE_TYPES:
        return value
    return [type(value).__name__, *(_pack(getattr(value, name)) for name in value.__slots__)]


_PACKABLE_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (ValidImage, ValidLink, Incomplete, Rejected, Changed, Missing, Unreadable, Problem, Stamp)
}
_FIELD_TYPES = {kind: tuple(get_type_hints(kind).values()) for kind in _PACKABLE_TYPES.values()}


def _unpack(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind = _PACKABLE_TYPES[value[0]]
    return kind(
        *(_validate_field(field, _unpack(each)) for field, each in zip(_FIELD_TYPES[kind], value[1:], strict=True))
    )


def _validate_field(field: Callable[[Any], Any], value: Any) -> Any:
    """Return ``value`` if it has the type of the field and the journal can store it; otherwise raise ValueError."""
    if field in (Format, ErrorCode):
        return field(value)
    if type(value) is not field or (field is int and not -(2**63) <= value < 2**64):
        raise ValueError("no answer")
    if field is str:
        value.encode()
    return value


def _parse_results(line: bytes, request_count: int) -> list[ValidationResult]:
    """Return the verdicts in one line of output; raise ValueError if it is not a valid answer."""
    try:
        results = [_unpack(each) for each in json.loads(line)]
    except (LookupError, TypeError) as error:
        raise ValueError("no answer") from error
    if not 0 < len(results) <= request_count or not all(isinstance(each, ValidationResult) for each in results):
        raise ValueError("no answer")
    return results
