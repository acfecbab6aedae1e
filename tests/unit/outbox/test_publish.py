"""Publishing: a result appears complete or not at all, once, and never over another file."""

import os
import stat
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePath

import pytest

from picwish_watchd.fs.atomic_write import (
    FolderUnavailable,
    NameRefused,
    NoSpace,
    open_folder,
    rename_durably,
    write_part,
)
from picwish_watchd.outbox.publish import (
    NameTaken,
    Published,
    SpoolDamaged,
    existing_sha256,
    find_existing_image,
    publish_result,
    remove_stale_parts,
    write_sidecar,
)

DATA = b"result" * 400_000
DIGEST = sha256(DATA).hexdigest()
#: A regular file that can be opened but not read (EINVAL); see sysfs(5).
UNREADABLE = Path("/sys/class/net/lo/speed")
needs_sysfs = pytest.mark.skipif(not UNREADABLE.exists(), reason="needs sysfs")

Outcome = Published | NameTaken | FolderUnavailable | NoSpace | NameRefused | SpoolDamaged


@pytest.fixture
def spooled(tmp_path: Path) -> Path:
    path = tmp_path / "7.result"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    path = tmp_path / "outbox"
    path.mkdir()
    return path


def publish_spooled(
    spooled: Path, outbox: Path, name: str = "cat.jpg", *, replace: bool = False, digest: str = DIGEST
) -> Outcome:
    return publish_result(spooled, outbox, PurePath(name), mode=0o640, replace=replace, tag="7", sha256=digest)


def list_tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_result_appears_whole_with_its_mode_and_nothing_beside_it(spooled: Path, outbox: Path) -> None:
    assert publish_spooled(spooled, outbox, "2026/May/cat.jpg") == Published(outbox / "2026/May/cat.jpg")
    assert list_tree(outbox) == ["2026", "2026/May", "2026/May/cat.jpg"]
    assert (outbox / "2026/May/cat.jpg").read_bytes() == DATA
    assert stat.S_IMODE((outbox / "2026/May/cat.jpg").stat().st_mode) == 0o640
    assert stat.S_IMODE((outbox / "2026").stat().st_mode) == 0o750


def test_a_name_that_is_taken_is_left_alone(spooled: Path, outbox: Path) -> None:
    (outbox / "cat.jpg").write_text("somebody's")
    assert publish_spooled(spooled, outbox) == NameTaken()
    assert (outbox / "cat.jpg").read_text() == "somebody's"
    assert list_tree(outbox) == ["cat.jpg"]


def test_an_existing_file_is_replaced_on_request_and_a_folder_never(spooled: Path, outbox: Path) -> None:
    (outbox / "cat.jpg").write_text("older")
    (outbox / "dog.jpg").mkdir()
    assert publish_spooled(spooled, outbox, replace=True) == Published(outbox / "cat.jpg")
    assert (outbox / "cat.jpg").read_bytes() == DATA
    assert publish_spooled(spooled, outbox, "dog.jpg", replace=True) == NameTaken()


def test_an_outbox_that_is_away_is_never_made(spooled: Path, outbox: Path) -> None:
    outbox.rmdir()
    assert publish_spooled(spooled, outbox) == FolderUnavailable("is not a folder") or not outbox.exists()
    assert publish_spooled(spooled, outbox) == FolderUnavailable("No such file or directory")


def test_an_outbox_that_may_not_be_written_is_away(spooled: Path) -> None:
    assert isinstance(publish_spooled(spooled, Path("/proc/self/fdinfo")), FolderUnavailable)


def test_a_link_inside_the_outbox_leads_nowhere(spooled: Path, outbox: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (outbox / "way-out").symlink_to(tmp_path / "outside")
    assert publish_spooled(spooled, outbox, "way-out/cat.jpg") == NameRefused("Not a directory")
    assert list_tree(tmp_path / "outside") == []


def test_a_name_that_the_file_system_refuses_is_refused(spooled: Path, outbox: Path) -> None:
    assert publish_spooled(spooled, outbox, "x" * 256) == NameRefused("File name too long")
    assert list_tree(outbox) == []


def test_bytes_other_than_the_paid_result_are_not_delivered(spooled: Path, outbox: Path) -> None:
    assert isinstance(publish_spooled(spooled, outbox, digest="0" * 64), SpoolDamaged)
    spooled.unlink()
    assert publish_spooled(spooled, outbox) == SpoolDamaged(f"{spooled}: is not there any more")
    assert list_tree(outbox) == []


@needs_sysfs
def test_a_spool_that_cannot_be_read_is_not_blamed_on_the_outbox(outbox: Path) -> None:
    assert publish_spooled(UNREADABLE, outbox) == SpoolDamaged(f"{UNREADABLE}: Invalid argument")
    assert list_tree(outbox) == []


def test_a_spool_that_cannot_be_opened_is_reported(outbox: Path, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    assert publish_spooled(path, outbox) == SpoolDamaged(f"{path}: File name too long")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    process = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if process.returncode != 0:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_reported_and_keeps_no_partial_result(spooled: Path, small_disk: Path) -> None:
    assert publish_spooled(spooled, small_disk, "a/cat.jpg") == NoSpace("No space left on device")
    assert list_tree(small_disk) == ["a"]


def test_a_sidecar_replaces_an_older_one_and_holds_any_text(outbox: Path) -> None:
    name = PurePath("a/cat.jpg")
    for text in ("{}", '{"source": "caf\udce9"}'):
        outcome = write_sidecar(outbox, name, ".error.json", text, mode=0o644, tag="7")
        assert outcome == Published(outbox / "a/cat.jpg.error.json")
    assert (outbox / "a/cat.jpg.error.json").read_bytes() == b'{"source": "caf\\udce9"}'
    assert list_tree(outbox) == ["a", "a/cat.jpg.error.json"]


def test_a_sidecar_that_cannot_be_written_is_reported(outbox: Path) -> None:
    (outbox / "cat.jpg.json").mkdir()
    assert write_sidecar(outbox, PurePath("cat.jpg"), ".json", "{}", mode=0o644, tag="7") == NameTaken()
    assert write_sidecar(outbox / "away", PurePath("cat.jpg"), ".json", "{}", mode=0o644, tag="7") == FolderUnavailable(
        "No such file or directory"
    )


def test_an_own_result_is_recognised_after_a_crash(spooled: Path, outbox: Path) -> None:
    publish_spooled(spooled, outbox)
    (outbox / "link.jpg").symlink_to(outbox / "cat.jpg")
    assert existing_sha256(outbox / "cat.jpg") == DIGEST
    assert existing_sha256(outbox / "dog.jpg") is None
    assert existing_sha256(outbox / "link.jpg") is None
    assert existing_sha256(outbox) is None
    assert existing_sha256(outbox / ("x" * 300)) is None


@needs_sysfs
def test_a_result_that_cannot_be_read_is_not_taken_for_missing() -> None:
    assert existing_sha256(UNREADABLE) == FolderUnavailable("Invalid argument")


@pytest.mark.parametrize("existing", ["cat.jpg", "cat.JPEG", "cat.png", "cat.tiff"])
def test_an_image_of_that_name_is_found_under_any_image_extension(existing: str, outbox: Path) -> None:
    names = [PurePath("a") / f"cat.{each}" for each in ("jpg", "png", "webp", "bmp", "tif")]
    assert find_existing_image(outbox, names) is None
    (outbox / "a").mkdir()
    assert find_existing_image(outbox, names) is None
    (outbox / "a" / existing).write_text("")
    assert find_existing_image(outbox, names) == outbox / "a" / existing


@pytest.mark.parametrize("existing", ["cat.gif", "cat.jpg.json", "cats.jpg", "cat", "Cat.jpg"])
def test_other_files_are_not_taken_for_an_image_of_that_name(existing: str, outbox: Path) -> None:
    (outbox / existing).write_text("")
    (outbox / "cat.png").mkdir()
    assert find_existing_image(outbox, [PurePath("cat.jpg"), PurePath("cat.png")]) is None


def test_an_outbox_that_is_away_is_not_taken_for_an_empty_one(outbox: Path) -> None:
    assert find_existing_image(outbox / "away", [PurePath("cat.jpg")]) == FolderUnavailable("No such file or directory")


def test_only_own_parts_are_swept_away(outbox: Path, tmp_path: Path) -> None:
    below = outbox / "a" / "b"
    below.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (outbox, below, outside):
        (path / ".picwish-7-0a1b.part").write_text("")
    (outbox / "link").symlink_to(outside)
    (outbox / ".picwish-8-0a1b.part").symlink_to(outside / ".picwish-7-0a1b.part")
    (outbox / ".picwish-9.part").mkdir()
    (outbox / ".picwish-.part").write_text("")
    (outbox / "movie.part").write_text("")
    assert remove_stale_parts(outbox)
    assert not os.listdir(below)
    assert list_tree(outside) == [".picwish-7-0a1b.part"]
    assert sorted(os.listdir(outbox)) == [
        ".picwish-.part",
        ".picwish-8-0a1b.part",
        ".picwish-9.part",
        "a",
        "link",
        "movie.part",
    ]
    assert not remove_stale_parts(outbox / "away")


def test_what_is_just_being_written_is_not_swept_away(outbox: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"half"
        # Another rule has just begun it.
        assert remove_stale_parts(outbox)
        yield b"and half"

    with open_folder(outbox, (), 0o644) as folder:
        part, _ = write_part(folder, blocks(), tag="7", mode=0o644)
        assert rename_durably(folder, part, folder, "cat.jpg")
    assert list_tree(outbox) == ["cat.jpg"]
