"""Files validated in a process of its own: the same verdicts, and no way it can end affects the daemon."""

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
from picwish_watchd.fs.verdicts import Incomplete, Missing, Rejected
from picwish_watchd.images import validation_process
from picwish_watchd.images.inspect import ImageLimits, ValidImage
from picwish_watchd.images.validate import ValidationRequest
from picwish_watchd.images.validation_process import ValidationProcess, validate_requests
from picwish_watchd.job import ErrorCode, Stamp
from tests.support.mounts import hanging_mount
from tests.support.sample_images import make_image

IMPORT_PROCESS = "from picwish_watchd.images import validation_process\n"
LIMITS = ImageLimits(max_bytes=30 * 2**20, max_side=4096)


@pytest.fixture
def validator() -> Iterator[ValidationProcess]:
    process = ValidationProcess(patience=0.05)
    yield process
    process.close()


def make_question(
    path: Path, *, final: bool = False, stamp: Stamp | None = None, limits: ImageLimits = LIMITS
) -> ValidationRequest:
    return ValidationRequest(path, stamp or stamp_of(os.lstat(path)), limits, follow_symlinks=False, final=final)


def whole_image_question(folder: Path, name: str = "whole.jpg") -> ValidationRequest:
    (folder / name).write_bytes(make_image())
    return make_question(folder / name)


def cut_image_question(folder: Path) -> ValidationRequest:
    """Return a question that only a decoder can answer."""
    (folder / "cut.png").write_bytes(make_image("png")[:400])
    return make_question(folder / "cut.png", final=True)


def unfinished_image_question(folder: Path, name: str = "doubtful.png") -> ValidationRequest:
    """Return a question about a file that lacks only its end and that every decoder accepts."""
    (folder / name).write_bytes(make_image("png")[:-12])
    return make_question(folder / name, final=True)


def child_pids(pid: int) -> list[int]:
    """Return the PIDs of a process's children."""
    pids = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(each) for each in children.read_text().split()]
    return pids


def validation_pids() -> list[int]:
    """Return the PIDs of this process's validation processes; it may have other children."""
    pids = []
    for pid in child_pids(os.getpid()):
        # The process has ended meanwhile.
        with suppress(OSError):
            pids += [pid] if b"images.validation_process" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return pids


def only_validation_pid() -> int:
    [pid] = validation_pids()
    return pid


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def install_sitecustomize(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every new interpreter run this code first."""
    (folder / "strange").mkdir()
    (folder / "strange" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "strange"))


def patched_decoder(does: str) -> str:
    """Replace the decoder by this code."""
    return f"import os\nfrom PIL import ImageFile\ndef load(self):\n    {does}\nImageFile.ImageFile.load = load\n"


def questions_of_every_kind(folder: Path) -> list[ValidationRequest]:
    """Return a question for each kind of verdict, with unusual file names among them."""
    odd = os.fsdecode(b"\xff\n\"'\\ \xe2\x80\xae.jpg")
    for name, data in (
        (odd, make_image()),
        ("a.tif", make_image("tiff")),
        ("b.png", make_image("png")[:-20]),
        ("c.jpg", b""),
        ("d.jpg", b"<html>"),
        ("e.url", b"[InternetShortcut]\nURL=https://example.org/a.jpg\n"),
        ("f.url", b"nothing"),
        ("g.jpg", make_image("jpeg", 128, 8)),
    ):
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "h.jpg")
    (folder / "i.jpg").symlink_to(folder / "a.tif")
    present = [make_question(path) for path in sorted(folder.iterdir())]
    away = ValidationRequest(folder / "gone.jpg", Stamp(1, 2, 3), LIMITS, follow_symlinks=False, final=False)
    other = make_question(folder / "a.tif", stamp=Stamp(2**63, 0, -(2**62)))
    return [
        *present,
        away,
        other,
        make_question(folder / "g.jpg", limits=ImageLimits(10**6, 100)),
        cut_image_question(folder),
    ]


def test_it_answers_what_a_thread_would_answer(tmp_path: Path, validator: ValidationProcess) -> None:
    questions = questions_of_every_kind(tmp_path)
    verdicts = validator.validate_batch(questions)
    assert verdicts == validate_requests(questions)
    assert len({type(verdict) for verdict in verdicts}) >= 6
    assert only_validation_pid()


def test_long_batches_are_answered_in_parts(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_sitecustomize(tmp_path, monkeypatch, IMPORT_PROCESS + "validation_process._BATCH_SECONDS = 0")
    rest, parts = [whole_image_question(tmp_path)] * 5, list[int]()
    while rest:
        parts.append(len(validator.validate_batch(rest)))
        rest = rest[parts[-1] :]
    assert parts == [1] * 5


def test_a_killed_process_is_restarted_and_loses_no_verdict(tmp_path: Path, validator: ValidationProcess) -> None:
    question = whole_image_question(tmp_path)
    before = validator.validate_batch([question])
    first = only_validation_pid()
    os.kill(first, signal.SIGKILL)
    assert validator.validate_batch([question]) == before
    assert validator.validate_batch([question]) == before
    assert only_validation_pid() != first


def test_a_process_killed_while_idle_blames_no_later_file(tmp_path: Path, validator: ValidationProcess) -> None:
    validator.validate_batch([whole_image_question(tmp_path)])
    os.kill(only_validation_pid(), signal.SIGKILL)
    assert isinstance(validator.validate_final(unfinished_image_question(tmp_path)), ValidImage)


@pytest.mark.parametrize("death", ["os.abort()", "bytearray(2**40)", "os.kill(os.getpid(), 9)"])
def test_a_file_that_crashes_the_decoder_is_corrupt_and_the_next_is_validated(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    install_sitecustomize(tmp_path, monkeypatch, patched_decoder(death))
    broken = validator.validate_final(cut_image_question(tmp_path))
    assert isinstance(broken, Rejected)
    assert broken.problem.code in (ErrorCode.CORRUPT, ErrorCode.TRUNCATED)
    assert "cut.png" in broken.problem.message
    assert isinstance(validator.validate_batch([whole_image_question(tmp_path)])[0], ValidImage)


def test_an_endless_decoder_is_killed(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from PIL import ImageFile\ndef load(self):\n    while True: pass\nImageFile.ImageFile.load = load\n"
    code += IMPORT_PROCESS + "validation_process._MAX_CPU_SECONDS = 1\n"
    install_sitecustomize(tmp_path, monkeypatch, code)
    assert isinstance(validator.validate_final(cut_image_question(tmp_path)), Rejected)


@pytest.mark.parametrize("signal_name", ["SIGTERM", "close"])
def test_a_stopped_process_gives_no_verdict_about_the_file(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch, signal_name: str
) -> None:
    started = tmp_path / "begun"
    install_sitecustomize(
        tmp_path,
        monkeypatch,
        patched_decoder(f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"),
    )
    verdicts: list[object] = []
    asking = threading.Thread(target=lambda: verdicts.append(validator.validate_final(cut_image_question(tmp_path))))
    asking.start()
    wait_until(started.exists)
    if signal_name == "close":
        validator.close()
    else:
        os.kill(only_validation_pid(), signal.SIGTERM)
    asking.join(10)
    [verdict] = verdicts
    assert isinstance(verdict, Incomplete)


def test_a_frozen_process_is_replaced_and_blames_no_file(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = unfinished_image_question(tmp_path)
    assert isinstance(validator.validate_final(question), ValidImage)
    monkeypatch.setattr(validation_process, "_SILENCE_TIMEOUT", 0.05)
    for _ in range(2):
        frozen = only_validation_pid()
        os.kill(frozen, signal.SIGSTOP)
        assert isinstance(validator.validate_final(question), Incomplete)
        assert isinstance(validator.validate_final(question), ValidImage)
        assert only_validation_pid() != frozen
    os.kill(only_validation_pid(), signal.SIGSTOP)
    assert isinstance(validator.validate_batch([whole_image_question(tmp_path)])[0], ValidImage)


def test_a_hanging_process_blocks_only_its_own_caller(tmp_path: Path, validator: ValidationProcess) -> None:
    question, doubtful = whole_image_question(tmp_path), cut_image_question(tmp_path)
    validator.validate_batch([question])
    os.kill(only_validation_pid(), signal.SIGSTOP)
    verdicts: list[object] = []
    asking = threading.Thread(target=lambda: verdicts.extend(validator.validate_batch([question])))
    asking.start()
    wait_until(lambda: validator.is_busy)
    assert isinstance(validator.validate_batch([question])[0], ValidImage)
    for _ in range(3):
        assert isinstance(validator.validate_final(doubtful), Rejected)
    assert not verdicts
    assert len(validation_pids()) == 2, "one process for all files that do not hang"
    validator.close()
    asking.join(10)
    assert isinstance(verdicts[0], ValidImage)
    assert not validation_pids()


def test_closing_does_not_wait_for_an_unkillable_process(tmp_path: Path, validator: ValidationProcess) -> None:
    """The process waits in the kernel for a dead server."""
    (tmp_path / "nas").mkdir()
    with hanging_mount(tmp_path / "nas", unkillable=True) as nas:
        question = ValidationRequest(nas / "a.jpg", Stamp(1, 2, 3), LIMITS, follow_symlinks=False, final=False)
        asking = threading.Thread(target=validator.validate_batch, args=([question],))
        asking.start()
        wait_until(lambda: any("wait_answer" in Path(f"/proc/{pid}/wchan").read_text() for pid in validation_pids()))
        closing = threading.Thread(target=validator.close)
        closing.start()
        closing.join(5)
        assert not closing.is_alive()
        assert asking.is_alive()
    asking.join(10)
    assert not asking.is_alive()
    assert not validation_pids()


def test_after_closing_no_process_is_started_and_no_file_is_blamed(
    tmp_path: Path, validator: ValidationProcess
) -> None:
    validator.close()
    assert isinstance(validator.validate_batch([whole_image_question(tmp_path)])[0], ValidImage)
    assert isinstance(validator.validate_final(cut_image_question(tmp_path)), Incomplete)
    assert not validation_pids()


def test_stricter_system_limits_are_kept_and_blame_no_file(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = "resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))"
    install_sitecustomize(tmp_path, monkeypatch, f"import resource\n{bounds}")
    assert isinstance(validator.validate_final(unfinished_image_question(tmp_path)), ValidImage)
    assert only_validation_pid()


def test_a_name_means_the_same_file_to_a_process_of_another_locale(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nLC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    names = ["M\u00fcller.png", "\u5199\u771f.png", os.fsdecode(b"\xff.png")]
    assert all(
        isinstance(validator.validate_final(unfinished_image_question(tmp_path, name)), ValidImage) for name in names
    )
    assert only_validation_pid()


def test_a_process_of_another_version_is_not_used(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package was updated while the daemon runs."""
    other = "import picwish_watchd\npicwish_watchd.__version__ = 'another'\n"
    install_sitecustomize(
        tmp_path, monkeypatch, other + IMPORT_PROCESS + "validation_process._unpack_request = lambda one, two: None"
    )
    assert isinstance(validator.validate_final(unfinished_image_question(tmp_path)), ValidImage)
    assert not validation_pids()


def test_relative_paths_to_packages_mean_the_same_in_the_process(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_sitecustomize(tmp_path, monkeypatch, patched_decoder("os.abort()"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "strange")
    broken = validator.validate_final(unfinished_image_question(tmp_path))
    assert isinstance(broken, Rejected)
    assert broken.problem.code is ErrorCode.CORRUPT


def test_without_a_process_the_thread_validates_itself(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert isinstance(validator.validate_batch([whole_image_question(tmp_path)])[0], ValidImage)
    assert isinstance(validator.validate_final(cut_image_question(tmp_path)), Rejected)


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(1)",
        "print('hello')",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: 'nonsense'",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: ['Popen', 'sh']",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: ['Stamp', 1]",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: ['Problem', 'corrupt', 'x']",
        IMPORT_PROCESS + "validation_process.validate_requests = lambda asked: []",
        IMPORT_PROCESS
        + "all = validation_process.validate_requests\n"
        + "validation_process.validate_requests = lambda asked: all(asked * 2)",
        IMPORT_PROCESS + "validation_process._encode_line = lambda value: b'[\\n'",
        IMPORT_PROCESS + "validation_process._encode_line = lambda value: b'[' * 100_000 + b'\\n'",
        IMPORT_PROCESS + "validation_process._encode_line = lambda value: b' ' * 2**22 + b'[[\"Missing\"]]\\n'",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: ['Stamp', 2**64, 0, 0]",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: ['Unreadable', '\\ud800']",
        IMPORT_PROCESS + "validation_process._pack = lambda answer: ['Incomplete', {}, ['Stamp', 0, 0, 0]]",
    ],
)
def test_garbled_output_of_the_process_is_ignored(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    install_sitecustomize(tmp_path, monkeypatch, code)
    questions = [whole_image_question(tmp_path), make_question(tmp_path / "whole.jpg", stamp=Stamp(0, 0, 0))]
    assert validator.validate_batch(questions) == validate_requests(questions)


def test_the_process_knows_no_secrets_and_ends_when_idle(
    tmp_path: Path, validator: ValidationProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICWISH_API_KEY", "wx-very-secret")
    validator.validate_batch([whole_image_question(tmp_path)])
    pid = only_validation_pid()
    assert b"very-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    validator.stop_if_idle(60)
    assert only_validation_pid() == pid
    validator.stop_if_idle(0)
    assert pid not in validation_pids()
    assert isinstance(validator.validate_batch([make_question(tmp_path / "gone", stamp=Stamp(0, 0, 0))])[0], Missing)


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tests.unit.images.test_validation_process import whole_image_question, ValidationProcess\n"
        "ValidationProcess().validate_batch([whole_image_question(Path(sys.argv[1]))])\n"
        "print('asked', flush=True)\ntime.sleep(60)"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert maker.stdout is not None
    assert maker.stdout.readline() == b"asked\n"
    [pid] = child_pids(maker.pid)
    maker.kill()
    maker.wait()
    maker.stdout.close()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())
