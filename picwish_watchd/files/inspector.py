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
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from picwish_watchd.files.images import Inspected, Limits
from picwish_watchd.files.judging import Answer, Question, answer
from picwish_watchd.files.kinds import Format
from picwish_watchd.files.links import LinkFound
from picwish_watchd.files.names import shown
from picwish_watchd.files.verdicts import Bad, Changed, Gone, NotWhole, Unreadable
from picwish_watchd.job import ErrorCode, Problem, Stamp

_SLICE = 0.25  # seconds of judging before an answer
_MEMORY = 2**31  # bytes of address space; what is decoded has at most some 17 million pixels (`Limits.max_side`)
_COMPUTING = 60  # seconds for one answer
_PAUSE = 60.0  # seconds until another is tried where none could be begun
#: By which somebody stops a service and all its processes: no fault of the image.
_STOPPED = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
#: All of the environment that it gets, if set: what an interpreter may need to start, and no keys.
_ENVIRON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_READY = b"ready\n"
# The package may stand in the current folder only, which -P keeps out for what else might lie there.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from picwish_watchd.files.inspector import serve; serve()"


def answers_to(questions: Sequence[Question]) -> list[Answer]:
    """What the first of the files are, as many as fit into a slice of time, and at least one."""
    answers: list[Answer] = []
    until = time.monotonic() + _SLICE
    for question in questions:
        answers.append(answer(question))
        if time.monotonic() > until:
            break
    return answers


class Inspector:
    """A process that answers questions; begun at the first one, and again after it broke down.

    For threads: one question at a time. The process ends with `close`, and by itself when its maker is no more.
    """

    def __init__(self, *, patience: float = 3.0) -> None:
        """``patience``: seconds in which another rule's question is waited for; after that, its folder hangs."""
        self._patience = patience
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0.0
        self._not_before = 0.0

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._asking.locked()

    def judge(self, questions: Sequence[Question]) -> list[Answer]:
        """`answers_to`, from the process; from this thread, where that is busy, cannot be begun or broke down.

        Raises nothing. Where nothing is decoded no file can harm the thread: the structure is read by Python alone.
        """
        if self._asking.acquire(blocking=False):
            try:
                answers = self._ask(questions)
            finally:
                self._asking.release()
            if isinstance(answers, list):
                return answers
        return answers_to(questions)

    def decide(self, question: Question) -> Answer:
        """The answer to a ``final`` question. Raises nothing: a file over which the process breaks down is `Bad`."""
        if self._asking.acquire(timeout=self._patience):
            try:
                answers = self._ask([question])
            finally:
                self._asking.release()
        else:
            spare = Inspector()
            try:
                answers = spare._ask([question])
            finally:
                spare.close()
        if isinstance(answers, list):
            return answers[0]
        if answers is None:
            return answer(question)
        if answers in _STOPPED:
            return NotWhole(f"{shown(question.path.name)} could not be decoded: picwish-watchd stops", question.stamp)
        found = f"{shown(question.path.name)} is corrupt: what tried to decode it broke down; copy or export it again"
        return Bad(Problem(ErrorCode.CORRUPT, found), question.stamp)

    def rest(self, after: float) -> None:
        """Ends the process if nothing was asked for ``after`` seconds: it holds some 30 MB."""
        if self._process is not None and time.monotonic() - self._used > after and self._asking.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._asking.release()

    def close(self) -> None:
        """Ends the process at once, whatever it does; does not wait for one that hangs."""
        process, self._process = self._process, None
        if process is not None:
            _ended(process)

    def _ask(self, questions: Sequence[Question]) -> list[Answer] | int | None:
        """Answers; the exit code of a process that broke down; None where none can be begun."""
        if self._process is None and time.monotonic() < self._not_before:
            return None
        try:
            process = self._process or _begun()
        except OSError:
            self._not_before = time.monotonic() + _PAUSE
            return None
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(_line([_question(each) for each in questions]))
            process.stdin.flush()
            answers = _answers(process.stdout.readline(), len(questions))
        except (OSError, ValueError):  # it is gone, or was closed, or talks nonsense
            answers = []
        self._used = time.monotonic()
        if answers:
            return answers
        closed, self._process = self._process is not process, None
        code = _ended(process)
        return -signal.SIGTERM if closed else code


def serve() -> None:
    """The process: a line of questions in at stdin, a line of answers out at stdout, until there is no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with suppress(BrokenPipeError):
        _say(_READY)
        while line := sys.stdin.buffer.readline():
            used = int(time.process_time())
            resource.setrlimit(resource.RLIMIT_CPU, (used + _COMPUTING, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            _say(_line([_packed(each) for each in answers_to([_asked(each) for each in json.loads(line)])]))


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _begun() -> "subprocess.Popen[bytes]":
    """OSError: there is no room for a process, or it cannot run here."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parents[2])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
        env={name: os.environ[name] for name in _ENVIRON if name in os.environ},
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != _READY:
        raise ChildProcessError(_ended(process))
    return process


def _ended(process: "subprocess.Popen[bytes]") -> int | None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        return process.wait(1.0)
    return None


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _question(asked: Question) -> list[object]:
    stamp, limits = asked.stamp, asked.limits
    return [
        str(asked.path), stamp.inode, stamp.size, stamp.mtime_ns, limits.max_bytes, limits.max_side, limits.fitting,
        asked.follow_symlinks, asked.final,
    ]  # fmt: skip


def _asked(packed: list[Any]) -> Question:
    path, inode, size, mtime_ns, max_bytes, max_side, fitting, follow_symlinks, final = packed
    limits = Limits(max_bytes, max_side, fitting)
    return Question(Path(path), Stamp(inode, size, mtime_ns), limits, follow_symlinks, final)


def _packed(value: Any) -> Any:
    if type(value).__name__ not in _MADE:
        return value
    return [type(value).__name__, *(_packed(getattr(value, name)) for name in value.__slots__)]


def _unpacked(value: Any) -> Any:
    return _MADE[value[0]](*map(_unpacked, value[1:])) if isinstance(value, list) else value


def _inspected(format: str, width: int, height: int, size: int, sha256: str, stamp: Stamp) -> Inspected:
    return Inspected(Format(format), width, height, size, sha256, stamp)


def _problem(code: str, message: str) -> Problem:
    return Problem(ErrorCode(code), message)


_MADE: dict[str, Callable[..., Any]] = {"Inspected": _inspected, "Problem": _problem}
_MADE.update({kind.__name__: kind for kind in (LinkFound, NotWhole, Bad, Changed, Gone, Unreadable, Stamp)})


def _answers(line: bytes, asked: int) -> list[Answer]:
    """What it said; ValueError where that is no answer."""
    try:
        answers = [_unpacked(each) for each in json.loads(line)]
    except (LookupError, TypeError) as error:
        raise ValueError("no answer") from error
    if not 0 < len(answers) <= asked or not all(isinstance(each, Answer) for each in answers):
        raise ValueError("no answer")
    return answers
