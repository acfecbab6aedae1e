"""Files judged by a process of its own: the same answers, and none of its ends is the daemon's."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.fs.verdicts import Bad, Gone, NotWhole
from picwish_watchd.images import validation_process
from picwish_watchd.images.inspect import Inspected, Limits
from picwish_watchd.images.validate import Question
from picwish_watchd.images.validation_process import Inspector, answers_to
from picwish_watchd.job import ErrorCode, Stamp
from tests.support.mounting import hanging
from tests.support.pictures import picture

INSPECTOR = "from picwish_watchd.images import validation_process as inspector\n"
LIMITS = Limits(max_bytes=30 * 2**20, max_side=4096)


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    made = Inspector(patience=0.05)
    yield made
    made.close()


def ask(path: Path, *, final: bool = False, stamp: Stamp | None = None, limits: Limits = LIMITS) -> Question:
    return Question(path, stamp or stamp_of(os.lstat(path)), limits, follow_symlinks=False, final=final)


def whole(folder: Path, name: str = "whole.jpg") -> Question:
    (folder / name).write_bytes(picture())
    return ask(folder / name)


def cut(folder: Path) -> Question:
    """One that only a decoder can decide on."""
    (folder / "cut.png").write_bytes(picture("png")[:400])
    return ask(folder / "cut.png", final=True)


def doubtful(folder: Path, name: str = "doubtful.png") -> Question:
    """One of which only the end is missing, which every decoder takes."""
    (folder / name).write_bytes(picture("png")[:-12])
    return ask(folder / name, final=True)


def processes_of(pid: int) -> list[int]:
    """Those that a process has begun."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(each) for each in children.read_text().split()]
    return found


def inspectors() -> list[int]:
    """Those of this process, which may have others."""
    found = []
    for pid in processes_of(os.getpid()):
        with suppress(OSError):  # it has ended meanwhile
            found += [pid] if b"images.validation_process" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return found


def only_process() -> int:
    [pid] = inspectors()
    return pid


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def strange(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Every interpreter that is begun from now on runs this first."""
    (folder / "strange").mkdir()
    (folder / "strange" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "strange"))


def decoder(does: str) -> str:
    """A decoder that does something else."""
    return f"import os\nfrom PIL import ImageFile\ndef load(self):\n    {does}\nImageFile.ImageFile.load = load\n"


def every_kind(folder: Path) -> list[Question]:
    """A question for each kind of answer, hostile names among them."""
    odd = os.fsdecode(b"\xff\n\"'\\ \xe2\x80\xae.jpg")
    for name, data in (
        (odd, picture()), ("a.tif", picture("tiff")), ("b.png", picture("png")[:-20]), ("c.jpg", b""),
        ("d.jpg", b"<html>"), ("e.url", b"[InternetShortcut]\nURL=https://example.org/a.jpg\n"), ("f.url", b"nothing"),
        ("g.jpg", picture("jpeg", 128, 8)),
    ):  # fmt: skip
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "h.jpg")
    (folder / "i.jpg").symlink_to(folder / "a.tif")
    present = [ask(path) for path in sorted(folder.iterdir())]
    away = Question(folder / "gone.jpg", Stamp(1, 2, 3), LIMITS, follow_symlinks=False, final=False)
    other = ask(folder / "a.tif", stamp=Stamp(2**63, 0, -(2**62)))
    return [*present, away, other, ask(folder / "g.jpg", limits=Limits(10**6, 100)), cut(folder)]


def test_it_answers_what_a_thread_would_answer(tmp_path: Path, inspector: Inspector) -> None:
    questions = every_kind(tmp_path)
    answers = inspector.judge(questions)
    assert answers == answers_to(questions)
    assert len({type(answer) for answer in answers}) >= 6
    assert only_process()


def test_what_takes_long_is_answered_in_parts(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange(tmp_path, monkeypatch, INSPECTOR + "inspector._SLICE = 0")
    rest, parts = [whole(tmp_path)] * 5, list[int]()
    while rest:
        parts.append(len(inspector.judge(rest)))
        rest = rest[parts[-1] :]
    assert parts == [1] * 5


def test_a_process_that_is_killed_costs_no_answer_and_is_begun_anew(tmp_path: Path, inspector: Inspector) -> None:
    question = whole(tmp_path)
    before = inspector.judge([question])
    first = only_process()
    os.kill(first, signal.SIGKILL)
    assert inspector.judge([question]) == before
    assert inspector.judge([question]) == before
    assert only_process() != first


def test_a_process_that_was_killed_while_it_rested_is_no_fault_of_the_next_file(
    tmp_path: Path, inspector: Inspector
) -> None:
    inspector.judge([whole(tmp_path)])
    os.kill(only_process(), signal.SIGKILL)
    assert isinstance(inspector.decide(doubtful(tmp_path)), Inspected)


@pytest.mark.parametrize("death", ["os.abort()", "bytearray(2**40)", "os.kill(os.getpid(), 9)"])
def test_a_file_over_which_the_decoder_breaks_down_is_corrupt_and_the_next_one_is_judged(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    strange(tmp_path, monkeypatch, decoder(death))
    broken = inspector.decide(cut(tmp_path))
    assert isinstance(broken, Bad)
    assert broken.problem.code in (ErrorCode.CORRUPT, ErrorCode.TRUNCATED)
    assert "cut.png" in broken.problem.message
    assert isinstance(inspector.judge([whole(tmp_path)])[0], Inspected)


def test_a_decoder_without_end_is_ended(tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from PIL import ImageFile\ndef load(self):\n    while True: pass\nImageFile.ImageFile.load = load\n"
    code += INSPECTOR + "inspector._COMPUTING = 1\n"
    strange(tmp_path, monkeypatch, code)
    assert isinstance(inspector.decide(cut(tmp_path)), Bad)


@pytest.mark.parametrize("way", ["SIGTERM", "close"])
def test_a_process_that_is_stopped_says_nothing_about_the_file(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    begun = tmp_path / "begun"
    strange(
        tmp_path, monkeypatch, decoder(f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)")
    )
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(inspector.decide(cut(tmp_path))))
    asking.start()
    until(begun.exists)
    if way == "close":
        inspector.close()
    else:
        os.kill(only_process(), signal.SIGTERM)
    asking.join(10)
    [answer] = answers
    assert isinstance(answer, NotWhole)


def test_one_that_was_frozen_is_replaced_and_no_file_is_at_fault_for_it(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = doubtful(tmp_path)
    assert isinstance(inspector.decide(question), Inspected)
    monkeypatch.setattr(validation_process, "_FROZEN", 0.05)
    for _ in range(2):
        frozen = only_process()
        os.kill(frozen, signal.SIGSTOP)
        assert isinstance(inspector.decide(question), NotWhole)
        assert isinstance(inspector.decide(question), Inspected)
        assert only_process() != frozen
    os.kill(only_process(), signal.SIGSTOP)
    assert isinstance(inspector.judge([whole(tmp_path)])[0], Inspected)


def test_one_that_hangs_keeps_only_who_asked_it(tmp_path: Path, inspector: Inspector) -> None:
    question, doubtful = whole(tmp_path), cut(tmp_path)
    inspector.judge([question])
    os.kill(only_process(), signal.SIGSTOP)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.extend(inspector.judge([question])))
    asking.start()
    until(lambda: inspector.busy)
    assert isinstance(inspector.judge([question])[0], Inspected)
    for _ in range(3):
        assert isinstance(inspector.decide(doubtful), Bad)
    assert not answers
    assert len(inspectors()) == 2, "one for those that do not hang, not one for each of their files"
    inspector.close()
    asking.join(10)
    assert isinstance(answers[0], Inspected)
    assert not inspectors()


def test_the_end_does_not_wait_for_one_that_not_even_sigkill_ends(tmp_path: Path, inspector: Inspector) -> None:
    """One that waits in the kernel for a dead server."""
    (tmp_path / "nas").mkdir()
    with hanging(tmp_path / "nas", to_the_death=True) as nas:
        question = Question(nas / "a.jpg", Stamp(1, 2, 3), LIMITS, follow_symlinks=False, final=False)
        asking = threading.Thread(target=inspector.judge, args=([question],))
        asking.start()
        until(lambda: any("wait_answer" in Path(f"/proc/{pid}/wchan").read_text() for pid in inspectors()))
        closing = threading.Thread(target=inspector.close)
        closing.start()
        closing.join(5)
        assert not closing.is_alive()
        assert asking.is_alive()
    asking.join(10)
    assert not asking.is_alive()
    assert not inspectors()


def test_after_the_end_none_is_begun_and_no_file_is_at_fault_for_it(tmp_path: Path, inspector: Inspector) -> None:
    inspector.close()
    assert isinstance(inspector.judge([whole(tmp_path)])[0], Inspected)
    assert isinstance(inspector.decide(cut(tmp_path)), NotWhole)
    assert not inspectors()


def test_narrower_bounds_of_the_system_are_kept_and_no_fault_of_a_file(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = "resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))"
    strange(tmp_path, monkeypatch, f"import resource\n{bounds}")
    assert isinstance(inspector.decide(doubtful(tmp_path)), Inspected)
    assert only_process()


def test_a_name_means_the_same_file_to_a_process_of_another_locale(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nLC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    names = ["M\u00fcller.png", "\u5199\u771f.png", os.fsdecode(b"\xff.png")]
    assert all(isinstance(inspector.decide(doubtful(tmp_path, name)), Inspected) for name in names)
    assert only_process()


def test_a_process_of_another_version_is_not_asked(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package was updated below the daemon, which runs on."""
    other = "import picwish_watchd\npicwish_watchd.__version__ = 'another'\n"
    strange(tmp_path, monkeypatch, other + INSPECTOR + "inspector._asked = lambda one, two: None")
    assert isinstance(inspector.decide(doubtful(tmp_path)), Inspected)
    assert not inspectors()


def test_relative_paths_to_packages_mean_the_same_in_the_process(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange(tmp_path, monkeypatch, decoder("os.abort()"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "strange")
    broken = inspector.decide(doubtful(tmp_path))
    assert isinstance(broken, Bad)
    assert broken.problem.code is ErrorCode.CORRUPT


def test_where_none_can_be_begun_the_thread_answers(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert isinstance(inspector.judge([whole(tmp_path)])[0], Inspected)
    assert isinstance(inspector.decide(cut(tmp_path)), Bad)


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(1)",
        "print('hello')",
        INSPECTOR + "inspector._packed = lambda answer: 'nonsense'",
        INSPECTOR + "inspector._packed = lambda answer: ['Popen', 'sh']",
        INSPECTOR + "inspector._packed = lambda answer: ['Stamp', 1]",
        INSPECTOR + "inspector._packed = lambda answer: ['Problem', 'corrupt', 'x']",
        INSPECTOR + "inspector.answers_to = lambda asked: []",
        INSPECTOR + "all = inspector.answers_to\ninspector.answers_to = lambda asked: all(asked * 2)",
        INSPECTOR + "inspector._line = lambda value: b'[\\n'",
        INSPECTOR + "inspector._line = lambda value: b'[' * 100_000 + b'\\n'",
        INSPECTOR + "inspector._line = lambda value: b' ' * 2**22 + b'[[\"Gone\"]]\\n'",
        INSPECTOR + "inspector._packed = lambda answer: ['Stamp', 2**64, 0, 0]",
        INSPECTOR + "inspector._packed = lambda answer: ['Unreadable', '\\ud800']",
        INSPECTOR + "inspector._packed = lambda answer: ['NotWhole', {}, ['Stamp', 0, 0, 0]]",
    ],
)
def test_one_that_talks_nonsense_is_not_believed(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    strange(tmp_path, monkeypatch, code)
    questions = [whole(tmp_path), ask(tmp_path / "whole.jpg", stamp=Stamp(0, 0, 0))]
    assert inspector.judge(questions) == answers_to(questions)


def test_it_has_no_keys_and_ends_when_nothing_is_asked(
    tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICWISH_API_KEY", "wx-very-secret")
    inspector.judge([whole(tmp_path)])
    pid = only_process()
    assert b"very-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    inspector.rest(60)
    assert only_process() == pid
    inspector.rest(0)
    assert pid not in inspectors()
    assert isinstance(inspector.judge([ask(tmp_path / "gone", stamp=Stamp(0, 0, 0))])[0], Gone)


def test_it_ends_when_its_maker_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.unit.files.test_inspector import whole, Inspector\n"
        "inspector = Inspector()\ninspector.judge([whole(Path(sys.argv[1]))])\n"
        "print('asked', flush=True)\ntime.sleep(60)"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert maker.stdout is not None
    assert maker.stdout.readline() == b"asked\n"
    [pid] = processes_of(maker.pid)
    maker.kill()
    maker.wait()
    maker.stdout.close()
    until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())
