"""Downscaling an image in the real process."""

import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageCms, ImageOps, ImageStat

from picwish_watchd.fs.verdicts import Changed, Missing
from picwish_watchd.images import downscale_process
from picwish_watchd.images.downscale import (
    DownscaleDeferred,
    DownscaleFailed,
    DownscaleRequest,
    ProcessLimits,
    copy_source,
    downscale_image,
)
from picwish_watchd.images.downscale_process import ExitCode
from picwish_watchd.images.inspect import ImageLimits, ValidImage
from picwish_watchd.job import ErrorCode
from tests.support.sample_images import draw_image

SIDE = 60


def make_order(path: Path, *, max_side: int = SIDE, max_bytes: int = 10**6) -> DownscaleRequest:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        size = image.size
    return DownscaleRequest(path, hashlib.sha256(data).hexdigest(), len(data), *size, ImageLimits(max_bytes, max_side))


def run_fit(order: DownscaleRequest, **more: Any) -> object:
    """Return the verdict of a downscale that is not cancelled; only a finished image may be left."""
    folder = order.source.parent
    copy, target = folder / "1.source.part", folder / "1.fitted.part"
    more = {"give_up": lambda: False, **more}
    verdict = copy_source(order, copy, give_up=more["give_up"]) or downscale_image(
        order, copy=copy, target=target, **more
    )
    assert not copy.exists()
    assert target.exists() == isinstance(verdict, ValidImage)
    return verdict


def open_result(folder: Path) -> Image.Image:
    return Image.open(io.BytesIO((folder / "1.fitted.part").read_bytes()))


MODE_CASES = [
    ("RGB", "JPEG", "JPEG", "RGB"),
    ("L", "JPEG", "JPEG", "L"),
    ("CMYK", "JPEG", "JPEG", "CMYK"),
    ("RGB", "PNG", "PNG", "RGB"),
    ("RGBA", "PNG", "PNG", "RGBA"),
    ("I;16", "PNG", "PNG", "I;16"),
    ("1", "PNG", "PNG", "L"),
    ("P", "PNG", "PNG", "RGB"),
    ("RGB", "BMP", "PNG", "RGB"),
    ("RGB", "TIFF", "PNG", "RGB"),
    ("I;16", "TIFF", "PNG", "I;16"),
    ("CMYK", "TIFF", "JPEG", "CMYK"),
    ("RGB", "WEBP", "WEBP", "RGB"),
    ("RGBA", "WEBP", "WEBP", "RGBA"),
]


@pytest.mark.parametrize(("mode", "written", "kind", "becomes"), MODE_CASES)
def test_every_kind_of_image_keeps_its_format_and_mode_if_possible(
    tmp_path: Path, mode: str, written: str, kind: str, becomes: str
) -> None:
    source = draw_image("png", 120, 80)
    picture = source.convert("L").convert(mode) if mode in ("1", "I;16") else source.convert(mode)
    if mode == "RGBA":
        picture.putalpha(128)
    picture.save(tmp_path / "a", written)
    verdict = run_fit(make_order(tmp_path / "a"))
    assert isinstance(verdict, ValidImage)
    assert (verdict.width, verdict.height) == (60, 40)
    with open_result(tmp_path) as image:
        assert (image.format, image.mode) == (kind, becomes)


def test_a_rotated_image_looks_the_same_after_downscaling(tmp_path: Path) -> None:
    picture = Image.new("RGB", (120, 80), "white")
    picture.paste("black", (0, 0, 60, 80))
    exif = Image.Exif()
    # The left side of the picture is its top.
    exif[274] = 6
    picture.save(tmp_path / "a.jpg", "JPEG", exif=exif, quality=95)
    assert isinstance(run_fit(make_order(tmp_path / "a.jpg")), ValidImage)
    with open_result(tmp_path) as image:
        assert image.size == (40, 60)
        assert image.getexif().get(274, 1) == 1
        grey = image.convert("L").tobytes()
        assert grey[5 * 40 + 20] < 20, "the top was the left side"
        assert grey[55 * 40 + 20] > 235


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_every_orientation_of_every_kind_is_applied_once(tmp_path: Path, kind: str, turn: int) -> None:
    picture = Image.new("RGB", (120, 80), "white")
    picture.paste("red", (0, 0, 60, 40))
    picture.paste("blue", (60, 40, 120, 80))
    exif = Image.Exif()
    exif[274] = turn
    picture.save(tmp_path / "a", kind, exif=exif)
    with Image.open(io.BytesIO((tmp_path / "a").read_bytes())) as opened:
        # Pillow applies the orientation of a TIFF itself.
        opened.load()
        looks = opened.copy() if kind == "TIFF" else ImageOps.exif_transpose(opened)
    assert isinstance(run_fit(make_order(tmp_path / "a")), ValidImage)
    with open_result(tmp_path) as image:
        assert image.size == (looks.width // 2, looks.height // 2)
        difference = ImageChops.difference(image.convert("L"), looks.resize(image.size).convert("L"))
        assert ImageStat.Stat(difference).mean[0] < 10


def test_the_colour_profile_is_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        draw_image("jpeg", 120, 80).save(tmp_path / "a", kind, icc_profile=profile)
        assert isinstance(run_fit(make_order(tmp_path / "a")), ValidImage)
        with open_result(tmp_path) as image:
            assert image.info["icc_profile"] == profile
        (tmp_path / "1.fitted.part").unlink()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("max_bytes", [5000, 900])
def test_the_best_that_fits_into_the_bytes_is_taken(tmp_path: Path, kind: str, max_bytes: int) -> None:
    draw_image("jpeg", 200, 150).save(tmp_path / "a", kind, **({"lossless": True} if kind == "WEBP" else {}))
    verdict = run_fit(make_order(tmp_path / "a", max_side=4096, max_bytes=max_bytes))
    assert isinstance(verdict, ValidImage)
    assert max_bytes * 0.5 < verdict.size <= max_bytes


def test_an_image_that_needs_too_much_memory_ends_only_its_process(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png", compress_level=1)
    verdict = run_fit(make_order(tmp_path / "a.png"), bounds=ProcessLimits(memory_bytes=2**27))
    assert isinstance(verdict, DownscaleFailed)
    assert verdict.problem.code is ErrorCode.RESOLUTION_TOO_HIGH
    assert "a.png has 6000 x 6000 pixels and could not be made smaller" in verdict.problem.message


def test_a_transparent_picture_is_in_memory_twice_at_most(tmp_path: Path) -> None:
    """It has 144 MB decoded: a third copy would not fit, and 200 million pixels would exceed the daemon's limit."""
    Image.new("RGBA", (6000, 6000)).save(tmp_path / "a.png", compress_level=1)
    assert isinstance(
        run_fit(make_order(tmp_path / "a.png"), bounds=ProcessLimits(memory_bytes=3 * 144_000_000)), ValidImage
    )


def test_a_header_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    claim = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", claim), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    data = (tmp_path / "a.png").read_bytes()
    order = DownscaleRequest(
        tmp_path / "a.png", hashlib.sha256(data).hexdigest(), len(data), 50_000, 50_000, ImageLimits(10**6, SIDE)
    )
    verdict = run_fit(order)
    assert isinstance(verdict, DownscaleFailed)
    assert "200 million pixels" in verdict.problem.message


def test_a_timed_out_or_cancelled_downscale_leaves_no_files(tmp_path: Path) -> None:
    draw_image("png", 120, 80).save(tmp_path / "a.png")
    assert isinstance(run_fit(make_order(tmp_path / "a.png"), give_up=lambda: True), DownscaleDeferred)
    assert isinstance(run_fit(make_order(tmp_path / "a.png"), bounds=ProcessLimits(wall_seconds=0.0)), DownscaleFailed)


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGKILL, DownscaleFailed), (signal.SIGTERM, DownscaleDeferred)])
def test_a_killed_or_stopped_process_leaves_no_files_and_blames_no_image(
    tmp_path: Path, number: int, ends: type
) -> None:
    def kill() -> bool:
        for thread in os.listdir("/proc/self/task"):
            # A thread or the process has just ended.
            with suppress(OSError):
                for pid in Path(f"/proc/self/task/{thread}/children").read_text().split():
                    if b"downscale_process.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(int(pid), number)
        return False

    draw_image("png", 120, 80).save(tmp_path / "a.png")
    assert isinstance(run_fit(make_order(tmp_path / "a.png"), give_up=kill), ends)


def test_only_the_validated_bytes_are_downscaled(tmp_path: Path) -> None:
    draw_image("png", 120, 80).save(tmp_path / "a.png")
    order = make_order(tmp_path / "a.png")
    draw_image("png", 120, 80, seed=1).save(tmp_path / "a.png")
    assert isinstance(run_fit(order), Changed)
    (tmp_path / "a.png").unlink()
    assert isinstance(run_fit(order), Missing)


def test_an_undecodable_image_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    draw_image("png", 120, 80).save(sink, "PNG")
    (tmp_path / "a.png").write_bytes(sink.getvalue())
    order = make_order(tmp_path / "a.png")
    spoilt = sink.getvalue()[: len(sink.getvalue()) // 2]
    (tmp_path / "a.png").write_bytes(spoilt)
    order = DownscaleRequest(order.source, hashlib.sha256(spoilt).hexdigest(), len(spoilt), 120, 80, order.limits)
    verdict = run_fit(order)
    assert isinstance(verdict, DownscaleFailed)
    assert verdict.problem.code in (ErrorCode.TRUNCATED, ErrorCode.CORRUPT)


#: A process that waits for its downscaling process, as the daemon does.
_FIT_PROGRAM = """
import sys
from pathlib import Path
from picwish_watchd.images.downscale import DownscaleRequest, downscale_image
from picwish_watchd.images.inspect import ImageLimits
folder = Path(sys.argv[1])
order = DownscaleRequest(folder / "a.png", "0" * 64, 1, 1, 1, ImageLimits(10**6, 60))
downscale_image(order, copy=folder / "1.source.part", target=folder / "1.fitted.part", give_up=lambda: False)
"""


def child_pids(pid: int) -> list[int]:
    """Return the PIDs of a process's children: the fourth field of /proc/PID/stat is the parent (proc(5))."""
    pids = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                pids.append(int(entry.name))
    return pids


def wait_until(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_the_process_does_not_outlive_a_daemon_that_was_killed(tmp_path: Path) -> None:
    source = tmp_path / "1.source.part"
    # The process reads the FIFO for ever.
    os.mkfifo(source)
    feeding = os.open(source, os.O_RDWR)
    daemon = subprocess.Popen([sys.executable, "-c", _FIT_PROGRAM, str(tmp_path)])
    try:
        assert wait_until(lambda: bool(child_pids(daemon.pid)))
        [child] = child_pids(daemon.pid)
        assert wait_until(lambda: "downscale_process.py" in (Path("/proc") / str(child) / "cmdline").read_text())
        daemon.kill()
        daemon.wait()
        assert wait_until(lambda: not (Path("/proc") / str(child)).exists())
    finally:
        daemon.kill()
        daemon.wait()
        os.close(feeding)


def test_a_process_whose_daemon_died_before_it_began_ends_at_once(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-P",
        downscale_process.__file__,
        "60",
        "1000000",
        "1000000",
        str(2**31),
        "60",
        str(2**22 + 1),
    ]
    with (tmp_path / "a").open("xb+") as empty:
        process = subprocess.run(command, stdin=empty, capture_output=True, timeout=30, check=False)
    assert (process.returncode, process.stdout) == (ExitCode.ORPHANED, b"")
