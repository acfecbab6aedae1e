"""Judging files in a process of its own.

In a flood it works on another core, while the daemon writes down what was judged before. And it decodes what the
structure leaves in doubt: strangers' bytes may crash a decoder, and then the daemon goes on.

The two talk in lines of JSON, not in pickles: who took over the process by a picture could otherwise take over the
daemon, which has the key. What comes back is trusted no more than a file's name is: a job's bytes are hashed again
before they are sent.
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

# seconds of judging before an answer
_BATCH_SECONDS = 0.25
# bytes of address space; what is decoded has at most some 17 million pixels (`Limits.max_side`)
_MAX_MEMORY = 2**31
# seconds for one answer
_MAX_CPU_SECONDS = 60
# seconds until another is tried where none could be begun
_RESTART_DELAY = 60.0
# seconds without a word, after which one that is stopped (SIGSTOP) is given up
_SILENCE_TIMEOUT = 60.0
#: By which somebody stops a service and all its processes: no fault of the image.
_STOP_EXIT_CODES = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
#: All of the environment that it gets, if set: what an interpreter may need to start, and no keys.
_ENV_ALLOWLIST = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
#: An update may have changed the program, and how it talks, below a daemon that still runs.
_HANDSHAKE = f"ready {__version__}\n".encode()
# bytes of answers; those to 64 questions are some 20 kB
_LINE_MAX = 2**20
# The package may stand in the current folder only, which -P keeps out for what else might lie there.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from picwish_watchd.images.validation_process import serve; serve()"
)


def validate_requests(questions: Sequence[ValidationRequest]) -> list[ValidationResult]:
    """What the first of the files are, as many as fit into a slice of time, and at least one."""
    answers: list[ValidationResult] = []
    until = time.monotonic() + _BATCH_SECONDS
    for question in questions:
        answers.append(validate_request(question))
        if time.monotonic() > until:
            break
    return answers


class ValidationProcess:
    """A process that answers questions; begun at the first one, and again after it broke down.

    For threads: one question at a time. The process ends with `close`, and by itself when its maker is no more.
    """

    def __init__(self, *, patience: float = 3.0) -> None:
        """``patience``: seconds in which another rule's question is waited for; after that, its folder hangs."""
        self._patience = patience
        self._request_lock = threading.Lock()
        # when the question that is being answered was asked (monotonic seconds)
        self._requested_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._last_used = 0.0
        self._not_before = 0.0
        self._closed = False
        self._start_lock = threading.Lock()
        # for others, while a folder hangs
        self._spare: ValidationProcess | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a question is being answered."""
        return self._request_lock.locked()

    def validate_batch(self, questions: Sequence[ValidationRequest]) -> list[ValidationResult]:
        """`answers_to`, from the process; from this thread, where that is busy, cannot be begun or broke down.

        Raises nothing. Where nothing is decoded no file can harm the thread: the structure is read by Python alone.
        """
        if self._request_lock.acquire(blocking=False):
            answers = self._request(questions)
            if isinstance(answers, list):
                return answers
        return validate_requests(questions)

    def validate_final(self, question: ValidationRequest, *, again: bool = True) -> ValidationResult:
        """The answer to a ``final`` question. Raises nothing: a file over which two processes break down is `Bad`."""
        if not self._request_lock.acquire(timeout=max(0.0, self._requested_at + self._patience - time.monotonic())):
            return self._get_spare().validate_final(question)
        answers = self._request([question])
        if isinstance(answers, list):
            return answers[0]
        if answers is None:
            return validate_request(question)
        if answers in _STOP_EXIT_CODES:
            return Incomplete(
                f"{printable_path(question.path.name)} could not be decoded: what decodes was stopped", question.stamp
            )
        # it may have ended for a reason of its own, and before it was asked
        if again:
            return self.validate_final(question, again=False)
        name = printable_path(question.path.name)
        found = f"{name} is corrupt: the decoder crashed on it; copy or export it again"
        return Rejected(Problem(ErrorCode.CORRUPT, found), question.stamp)

    def stop_if_idle(self, after: float) -> None:
        """Ends the process if nothing was asked for ``after`` seconds: it holds some 30 MB."""
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
        """Ends the process at once, whatever it does, and begins no other; does not wait for one that hangs."""
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
        # else it is ended by whoever asked: what waits in the kernel for a dead mount does not even die, and who reads
        # from it keeps its pipe from being closed

    def _get_spare(self) -> "ValidationProcess":
        with self._start_lock:
            if self._spare is None:
                self._spare = ValidationProcess(patience=self._patience)
                if self._closed:
                    self._spare.close()
            return self._spare

    def _request(self, questions: Sequence[ValidationRequest]) -> list[ValidationResult] | int | None:
        """Answers; the exit code of a process that broke down; None where none can be begun. Gives `_asking` back."""
        try:
            self._requested_at = time.monotonic()
            process = self._process or self._start()
            if not isinstance(process, subprocess.Popen):
                return process
            answers = _exchange(process, questions)
            self._last_used = time.monotonic()
            closed = self._process is not process
            if answers and not closed:
                return answers
            self._process, code = None, _kill_and_wait(process)
            return answers or (-signal.SIGTERM if closed else code)
        finally:
            self._request_lock.release()

    def _start(self) -> "subprocess.Popen[bytes] | int | None":
        """A new process; None where there is no room for one, or it cannot run here; SIGTERM after `close`."""
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
    """The process: a line of questions in at stdin, a line of answers out at stdout, until there is no more."""
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
    """Bounds this process, or leaves the bound that is narrower already (getrlimit(2))."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _spawn() -> "subprocess.Popen[bytes]":
    """OSError: there is no room for a process, or none can be begun here."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and program
        [sys.executable or "", "-P", "-c", _PROGRAM, str(Path(__file__).parents[2])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={name: os.environ[name] for name in _ENV_ALLOWLIST if name in os.environ},
    )


def _exchange(process: "subprocess.Popen[bytes]", questions: Sequence[ValidationRequest]) -> list[ValidationResult]:
    """Its answers; none where it is gone, or talks nonsense."""
    assert process.stdin is not None
    try:
        process.stdin.write(_encode_line([_pack_request(each) for each in questions]))
        process.stdin.flush()
        return _parse_results(_read_line(process), len(questions))
    except (OSError, ValueError, RecursionError):
        return []


def _read_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    try:
        heard = select.poll()
        heard.register(process.stdout, select.POLLIN)
        while not heard.poll(_SILENCE_TIMEOUT * 1000):
            _terminate_if_stopped(process)
        return process.stdout.readline(_LINE_MAX)
    except (OSError, ValueError):
        # it was closed
        return b""


def _terminate_if_stopped(process: "subprocess.Popen[bytes]") -> None:
    """One that somebody has stopped answers nobody, and nothing tells of it. Who waits for a mount is left to wait."""
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


def _pack_request(asked: ValidationRequest) -> list[object]:
    stamp, limits = asked.stamp, asked.limits
    return [
        # bytes: the process may have been begun in another locale
        os.fsencode(asked.path).decode("latin-1"),
        stamp.inode,
        stamp.size,
        stamp.mtime_ns,
        limits.max_bytes,
        limits.max_side,
        limits.allow_downscale,
        asked.follow_symlinks,
        asked.final,
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
    """The same, if it is what belongs there: what the journal cannot store would end the daemon."""
    if field in (Format, ErrorCode):
        return field(value)
    if type(value) is not field or (field is int and not -(2**63) <= value < 2**64):
        raise ValueError("no answer")
    if field is str:
        value.encode()
    return value


def _parse_results(line: bytes, asked: int) -> list[ValidationResult]:
    """What it said; ValueError where that is no answer."""
    try:
        answers = [_unpack(each) for each in json.loads(line)]
    except (LookupError, TypeError) as error:
        raise ValueError("no answer") from error
    if not 0 < len(answers) <= asked or not all(isinstance(each, ValidationResult) for each in answers):
        raise ValueError("no answer")
    return answers
