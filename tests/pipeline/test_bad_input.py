"""Files that must not be sent, with the reason that is reported, and results that must not be delivered."""

import os
import socket
from pathlib import Path

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.simulator import HTML_PAGE, Fault, Reply, TruncateBody
from tests.support.harness import DaemonProcess, Harness
from tests.support.sample_images import make_image

BAD_FILES = {
    "text.jpg": (b"this is no picture at all, only words" * 9, ErrorCode.NOT_AN_IMAGE, "a text, not an image"),
    "movie.jpg": (b"GIF89a" + bytes(200), ErrorCode.UNSUPPORTED_FORMAT, "GIF"),
    "wide.bmp": (
        b"BM"
        + (54 + 5000 * 3).to_bytes(4, "little")
        + bytes(4)
        + (54).to_bytes(4, "little")
        + (40).to_bytes(4, "little")
        + (5000).to_bytes(4, "little")
        + (1).to_bytes(4, "little")
        + (1).to_bytes(2, "little")
        + (24).to_bytes(2, "little")
        + bytes(24)
        + bytes(5000 * 3),
        ErrorCode.RESOLUTION_TOO_HIGH,
        "5000 x 1",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_a_bad_file_is_rejected_with_a_sentence_and_never_sent(harness: Harness, name: str) -> None:
    data, code, words = BAD_FILES[name]
    harness.drop_file(name, data)
    assert await harness.run_once() == 1
    job = harness.job(name)
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.REJECTED, code)
    assert words in job.problem.message
    assert name in job.problem.message
    assert harness.count_creates() == 0


async def test_a_truncated_image_is_rejected_after_the_settle_timeout(harness: Harness) -> None:
    harness.rule = {"settle": "10ms", "settle_timeout": "300ms"}
    harness.drop_file("cut.jpg", make_image("jpeg", 300, 200)[:-2000])
    assert await harness.run_once() == 1
    problem = harness.job("cut.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.TRUNCATED
    assert harness.count_creates() == 0


async def test_an_image_that_crashes_the_decoder_is_rejected_and_others_go_on(harness: Harness) -> None:
    harness.rule = {"settle": "10ms", "settle_timeout": "300ms"}
    harness.drop_file("killer.jpg", make_image("jpeg", 300, 200)[:-2000])
    harness.drop_file("good.jpg")
    strange = harness.root / "strange"
    strange.mkdir()
    crash = "import os\nfrom PIL import ImageFile\nImageFile.ImageFile.load = lambda self: os.abort()\n"
    (strange / "sitecustomize.py").write_text(crash)
    process = DaemonProcess(harness, ("--once",), environ={"PYTHONPATH": str(strange)}, fresh=True).start()
    assert await process.wait_for_exit() == 1
    problem = harness.job("killer.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.CORRUPT
    assert "killer.jpg" in problem.message
    assert harness.job("good.jpg").state is State.DONE
    assert harness.count_creates() == 1


async def test_a_file_that_is_too_large_is_rejected_with_size_and_limit(harness: Harness) -> None:
    harness.api = {"max_bytes": 1000}
    harness.drop_file("big.jpg", make_image("jpeg", 300, 200))
    assert await harness.run_once() == 1
    problem = harness.job("big.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.FILE_TOO_LARGE
    assert harness.count_creates() == 0


async def test_special_files_are_never_opened_and_say_what_they_are(harness: Harness) -> None:
    os.mkfifo(harness.inbox / "pipe.jpg")
    (harness.inbox / "folder.jpg").mkdir()
    (harness.inbox / "link.jpg").symlink_to("/etc/passwd")
    with socket.socket(socket.AF_UNIX) as unix:
        home = Path.cwd()
        # The path of a socket is limited to 107 bytes.
        os.chdir(harness.inbox)
        try:
            unix.bind("socket.jpg")
        finally:
            os.chdir(home)
        harness.drop_file("folder.jpg/inside.jpg")
        assert await harness.run_once() == 1
    jobs = {str(job.relative): job for job in harness.jobs()}
    assert jobs["folder.jpg/inside.jpg"].state is State.DONE
    for name, word in {
        "pipe.jpg": "named pipe",
        "folder.jpg": "folder",
        "link.jpg": "symbolic link",
        "socket.jpg": "socket",
    }.items():
        problem = jobs[name].problem
        assert jobs[name].state is State.REJECTED
        assert problem is not None
        assert word in problem.message
    assert harness.count_creates() == 1


async def test_a_rejected_file_is_moved_with_its_reason_beside_it(harness: Harness) -> None:
    harness.rule = {"on_failure": "move", "failed": "failed"}
    harness.drop_file("sub/text.jpg", b"no picture" * 100)
    assert await harness.run_once() == 1
    assert (harness.root / "failed/sub/text.jpg").exists()
    assert "not_an_image" in (harness.root / "failed/sub/text.jpg.error.json").read_text()
    assert not (harness.inbox / "sub/text.jpg").exists()


async def test_a_rejected_file_that_is_repaired_is_accepted(harness: Harness) -> None:
    harness.drop_file("a.jpg", b"no picture" * 100)
    assert await harness.run_once() == 1
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg"}


@pytest.mark.parametrize("spoilt", [HTML_PAGE, TruncateBody(keep=500), Reply(200, b"")], ids=["html", "cut", "empty"])
async def test_a_result_that_is_no_image_is_downloaded_again_and_never_delivered(
    harness: Harness, spoilt: Reply
) -> None:
    harness.simulator.script.add(Fault("download", spoilt, times=2))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg"}
    assert harness.count_creates() == 1


async def test_a_result_that_never_becomes_an_image_is_held(harness: Harness) -> None:
    harness.simulator.script.add(Fault("download", HTML_PAGE, times=99))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code, job.credits) == (State.HELD, ErrorCode.RESULT_INVALID, 5)
    assert not list(harness.outbox.glob("*")) if harness.outbox.exists() else True
