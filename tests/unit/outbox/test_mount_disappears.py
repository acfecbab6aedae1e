"""A mount that disappears between a check and the opening of a folder on it: nothing is written below it."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

import pytest

from picwish_watchd.fs.atomic_write import FolderUnavailable
from picwish_watchd.fs.mounts import AcceptedMount, Mount, MountChanged, canonical_mount_of, detect_fd_mount_change
from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.outbox.originals import DisposalFailed, Moved, move_original
from picwish_watchd.outbox.publish import Published, publish_result, write_sidecar
from tests.support.mounts import mount, temporary_mount, unmount

DATA = b"a picture, or as good as one"
DIGEST = hashlib.sha256(DATA).hexdigest()
Write = Callable[[Path, Path, AcceptedMount], object]


@pytest.fixture
def nas(tmp_path: Path) -> Iterator[Path]:
    with temporary_mount(tmp_path / "nas") as folder:
        yield folder


def publish_spooled(source: Path, root: Path, accepted: AcceptedMount) -> object:
    return publish_result(
        source,
        root,
        PurePath("a/b.jpg"),
        mode=0o644,
        replace=False,
        tag="1",
        sha256=DIGEST,
        accepted=accepted,
    )


def publish_sidecar(source: Path, root: Path, accepted: AcceptedMount) -> object:
    return write_sidecar(root, PurePath("a/b.jpg"), ".json", "{}", mode=0o644, tag="1", accepted=accepted)


def archive_original(source: Path, root: Path, accepted: AcceptedMount) -> object:
    return move_original(
        source,
        stamp_of(source.lstat()),
        DIGEST,
        root,
        Path("a/b.jpg"),
        mode=0o644,
        tag="1",
        accepted=accepted,
    )


@pytest.mark.parametrize("write", [publish_spooled, publish_sidecar, archive_original])
@pytest.mark.parametrize("event", ["unmounted", "mounted over"])
def test_nothing_is_written_to_another_mount_than_the_checked_one(
    nas: Path, tmp_path: Path, write: Write, event: str
) -> None:
    source = tmp_path / "source.jpg"
    source.write_bytes(DATA)
    change, undo = (unmount, mount) if event == "unmounted" else (mount, unmount)
    if change is mount:
        unmount(nas)
    accepted = AcceptedMount("scans", canonical_mount_of(nas))
    change(nas)
    outcome = write(source, nas, accepted)
    assert isinstance(outcome, FolderUnavailable | DisposalFailed)
    assert outcome.reason.endswith("mount that again, or accept this one with `picwish-watchd approve scans`")
    assert list(nas.iterdir()) == []
    assert source.read_bytes() == DATA
    undo(nas)
    assert isinstance(write(source, nas, accepted), Published | Moved)
    assert len(list((nas / "a").iterdir())) == 1


def test_an_open_folder_has_its_mount_and_a_detached_one_has_none(nas: Path) -> None:
    home = canonical_mount_of(nas)
    assert home is not None
    folder = os.open(nas, os.O_RDONLY)
    try:
        assert detect_fd_mount_change(folder, home) is None
        assert detect_fd_mount_change(folder, Mount(str(nas), "nfs4")) is not None
        # Mount over it: an open folder stays where it is.
        mount(nas)
        assert detect_fd_mount_change(folder, home) is None
        unmount(nas)
        unmount(nas, lazily=True)
        assert detect_fd_mount_change(folder, home) == MountChanged(None, home)
    finally:
        os.close(folder)
