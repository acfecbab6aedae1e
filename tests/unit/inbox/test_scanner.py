"""Scanning: new and changed files are reported, known files cost nothing, and no file is ever missed."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from picwish_watchd.inbox.name_filter import JUNK_PATTERNS, NameFilter
from picwish_watchd.inbox.scanner import FileSeen, FullScanTimer, InboxUnavailable, Scanner
from picwish_watchd.job import Stamp
from tests.support.fuse_share import mount_share
from tests.support.mounts import temporary_mount

IMAGE_FILTER = NameFilter(["*.jpg", "*.png"], [])


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def make_scanner(
    inbox: Path, names: NameFilter = IMAGE_FILTER, *, recursive: bool = True, follow: bool = False
) -> Scanner:
    return Scanner(str(inbox), names, recursive=recursive, follow_symlinks=follow)


def scan_names(scanner: Scanner, *touched: str, full: bool = False) -> list[str]:
    """Return the sorted names that one scan reports."""
    files = scanner.scan(touched, full=full)
    assert not isinstance(files, InboxUnavailable)
    return sorted(sighting.relative for sighting in files)


def write_file(path: Path, content: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_new_file_is_reported_once_with_its_stamp(inbox: Path) -> None:
    status = write_file(inbox / "sub" / "a.jpg").stat()
    scanner = make_scanner(inbox)
    sightings = scanner.scan()
    assert not isinstance(sightings, InboxUnavailable)
    assert list(sightings) == [FileSeen("sub/a.jpg", Stamp(status.st_ino, 7, status.st_mtime_ns))]
    assert scan_names(scanner) == []
    assert scan_names(scanner, full=True) == []


def test_a_replaced_file_is_reported_by_a_quick_scan(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    scanner = make_scanner(inbox)
    scan_names(scanner)
    write_file(inbox / "b.part", b"picture")
    os.replace(inbox / "b.part", inbox / "a.jpg")
    assert scan_names(scanner) == ["a.jpg"]


@pytest.mark.parametrize(("intact", "reported"), [(True, ["a.jpg"]), (False, [])])
def test_files_missed_while_the_inbox_was_away_do_not_count_as_gone(
    inbox: Path, tmp_path: Path, intact: bool, reported: list[str]
) -> None:
    """Otherwise all files would be read and validated again when the mount is back."""
    write_file(inbox / "a.jpg")
    scanner = make_scanner(inbox)
    scan_names(scanner)
    os.rename(inbox / "a.jpg", tmp_path / "a.jpg")
    files = scanner.scan(intact=lambda: intact)
    assert not isinstance(files, InboxUnavailable)
    assert list(files) == []
    os.rename(tmp_path / "a.jpg", inbox / "a.jpg")
    assert scan_names(scanner) == reported


def test_no_link_to_a_file_or_a_folder_leads_to_results(inbox: Path, tmp_path: Path) -> None:
    """Results would be taken for originals. A folder whose name only begins alike is not such a folder."""
    outbox = tmp_path / "outbox"
    write_file(outbox / "sub" / "ours.jpg")
    write_file(tmp_path / "outbox2" / "theirs.jpg")
    for name, target in (
        ("file.jpg", outbox / "sub" / "ours.jpg"),
        ("folder", outbox),
        ("below", outbox / "sub"),
        ("other.jpg", tmp_path / "outbox2" / "theirs.jpg"),
        ("others", tmp_path / "outbox2"),
    ):
        (inbox / name).symlink_to(target)
    scanner = Scanner(str(inbox), IMAGE_FILTER, recursive=True, follow_symlinks=True, forbidden=[str(outbox)])
    assert scan_names(scanner) == ["other.jpg", "others/theirs.jpg"]


def test_a_file_changed_in_place_is_reported_only_by_a_full_scan(inbox: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        write_file(inbox / name)
    scanner = make_scanner(inbox)
    scan_names(scanner)
    for name in ("a.jpg", "b.jpg"):
        write_file(inbox / name, b"another picture")
    assert scan_names(scanner) == []
    assert scan_names(scanner, "a.jpg") == ["a.jpg"]
    assert scan_names(scanner, full=True) == ["b.jpg"]
    assert scan_names(scanner, full=True) == []


def test_a_file_that_was_removed_and_returned_is_reported_again(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    scanner = make_scanner(inbox)
    scan_names(scanner)
    os.rename(inbox / "a.jpg", inbox.parent / "a.jpg")
    assert scan_names(scanner) == []
    os.rename(inbox.parent / "a.jpg", inbox / "a.jpg")
    assert scan_names(scanner) == ["a.jpg"]


def test_a_file_replaced_by_a_dangling_link_is_forgotten(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    scanner = make_scanner(inbox, follow=True)
    scan_names(scanner)
    os.rename(inbox / "a.jpg", inbox.parent / "a.jpg")
    (inbox / "dangling.jpg").symlink_to("nowhere")
    assert scan_names(scanner) == []
    os.rename(inbox.parent / "a.jpg", inbox / "a.jpg")
    assert scan_names(scanner) == ["a.jpg"]


def test_a_file_known_to_the_journal_is_not_reported_until_it_changes(inbox: Path) -> None:
    status = write_file(inbox / "a.jpg").stat()
    write_file(inbox / "b.jpg")
    scanner = make_scanner(inbox)
    scanner.load_known(
        [("a.jpg", Stamp(status.st_ino, status.st_size, status.st_mtime_ns)), ("gone.jpg", Stamp(1, 2, 3))]
    )
    assert scan_names(scanner, full=True) == ["b.jpg"]


def test_a_file_that_was_forgotten_is_news(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    scanner = make_scanner(inbox)
    scan_names(scanner)
    scanner.forget_file("a.jpg")
    scanner.forget_file("never-known.jpg")
    assert scan_names(scanner) == ["a.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.jpg",
        "a.jpg.part",
        "A.JPG.PARTIAL",
        "a.jpg.tmp",
        "a.jpg.crdownload",
        "~$a.jpg",
        "a.jpg~",
        "Thumbs.db",
        "DESKTOP.INI",
        ".picwish-7.part",
        "a.filepart",
    ],
)
def test_junk_is_never_reported_with_any_include(inbox: Path, name: str) -> None:
    write_file(inbox / name)
    write_file(inbox / "a.jpg")
    assert scan_names(make_scanner(inbox, NameFilter(["*"], []))) == ["a.jpg"]


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", ".git", "__MACOSX", "lost+found", "x.tmp"])
def test_junk_folders_are_not_entered(inbox: Path, folder: str) -> None:
    write_file(inbox / folder / "a.jpg")
    write_file(inbox / "deep" / folder.upper() / "a.jpg")
    assert scan_names(make_scanner(inbox)) == []
    assert any(folder.lower() == pattern.lower() for pattern in JUNK_PATTERNS) or folder[0] == "." or folder == "x.tmp"


def test_globs_know_no_case_and_one_with_a_slash_sees_the_path(inbox: Path) -> None:
    for name in ("A.JPG", "b.Png", "c.gif", "raw/D.jpg", "Raw/drafts/e.jpg", "web/f.jpg", "web/raw.jpg"):
        write_file(inbox / name)
    assert scan_names(make_scanner(inbox)) == [
        "A.JPG",
        "Raw/drafts/e.jpg",
        "b.Png",
        "raw/D.jpg",
        "web/f.jpg",
        "web/raw.jpg",
    ]
    no_raw = NameFilter(["*.jpg", "*.png"], ["RAW"])
    assert scan_names(make_scanner(inbox, no_raw)) == ["A.JPG", "b.Png", "web/f.jpg", "web/raw.jpg"]
    no_drafts = NameFilter(["*.jpg"], ["raw/drafts"])
    assert scan_names(make_scanner(inbox, no_drafts)) == ["A.JPG", "raw/D.jpg", "web/f.jpg", "web/raw.jpg"]
    web_only = NameFilter(["WEB/*.jpg"], ["web/raw*"])
    assert scan_names(make_scanner(inbox, web_only)) == ["web/f.jpg"]
    assert scan_names(make_scanner(inbox, NameFilter([], []))) == []


def test_without_recursion_folders_are_not_entered(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    write_file(inbox / "sub" / "b.jpg")
    assert scan_names(make_scanner(inbox, recursive=False)) == ["a.jpg"]


def test_a_folder_named_like_an_image_is_reported_once_and_entered(inbox: Path) -> None:
    write_file(inbox / "x.jpg" / "a.jpg")
    scanner = make_scanner(inbox)
    assert scan_names(scanner) == ["x.jpg", "x.jpg/a.jpg"]
    write_file(inbox / "x.jpg" / "b.jpg")
    assert scan_names(scanner, full=True) == ["x.jpg/b.jpg"]


def test_names_that_are_not_utf8_are_reported(inbox: Path) -> None:
    names = [os.fsdecode(raw) for raw in (b"caf\xe9.jpg", b"new\nline.jpg", b"\xff.PNG", "日本.jpg".encode())]
    for name in names:
        write_file(inbox / name)
    assert scan_names(make_scanner(inbox)) == sorted(names)


def test_pipes_sockets_and_links_are_reported_as_such_and_not_opened(inbox: Path) -> None:
    os.mkfifo(inbox / "pipe.jpg")
    write_file(inbox.parent / "a.jpg")
    (inbox / "link.jpg").symlink_to("../a.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inbox / "s.jpg"))
    sightings = make_scanner(inbox).scan()
    assert not isinstance(sightings, InboxUnavailable)
    inodes = {sighting.relative: sighting.stamp.inode for sighting in sightings}
    assert inodes == {name: os.lstat(inbox / name).st_ino for name in ("pipe.jpg", "link.jpg", "s.jpg")}


def test_links_are_followed_when_configured(inbox: Path) -> None:
    target = write_file(inbox.parent / "elsewhere" / "a.jpg")
    (inbox / "folder").symlink_to("../elsewhere")
    (inbox / "file.jpg").symlink_to("../elsewhere/a.jpg")
    assert scan_names(make_scanner(inbox)) == ["file.jpg"]
    scanner = make_scanner(inbox, follow=True)
    assert scan_names(scanner) == ["file.jpg", "folder/a.jpg"]
    assert scan_names(scanner) == []
    target.write_bytes(b"another picture")
    assert scan_names(scanner, full=True) == ["file.jpg", "folder/a.jpg"]


def test_circular_links_are_not_followed_twice(inbox: Path) -> None:
    write_file(inbox / "sub" / "a.jpg")
    (inbox / "root").symlink_to(".")
    (inbox / "sub" / "up").symlink_to("..")
    (inbox / "sub" / "same").symlink_to("../sub")
    (inbox / "self").symlink_to("self")
    assert scan_names(make_scanner(inbox, follow=True)) == ["sub/a.jpg"]


def test_folders_linked_to_one_another_are_each_walked_once(inbox: Path) -> None:
    """There are a million paths through nine such folders."""
    names = [f"folder{number}" for number in range(9)]
    for name in names:
        write_file(inbox / name / "a.jpg")
        for other in names:
            (inbox / name / f"0-to-{other}").symlink_to(f"../{other}")
    linked = make_scanner(inbox, follow=True)
    assert scan_names(linked) == [f"{name}/a.jpg" for name in names]
    assert linked.folder_count == 10
    assert len(linked.repeated_links) == 81
    assert scan_names(linked) == []


def test_an_outside_folder_is_always_walked_by_the_same_link(inbox: Path) -> None:
    write_file(inbox.parent / "elsewhere" / "sub" / "a.jpg")
    for name in ("c", "a", "b"):
        (inbox / name).symlink_to("../elsewhere")
    (inbox / "d").symlink_to("../elsewhere/sub")
    linked = make_scanner(inbox, follow=True)
    assert scan_names(linked) == ["a/sub/a.jpg"]
    assert sorted(linked.repeated_links) == ["b", "c", "d"]
    write_file(inbox.parent / "elsewhere" / "b.jpg")
    assert scan_names(linked) == ["a/b.jpg"]


def test_share_folders_with_equal_inodes_are_all_walked(tmp_path: Path) -> None:
    with mount_share(tmp_path) as share, ExitStack() as disks:
        for name in ("scans", "photos"):
            write_file(disks.enter_context(temporary_mount(tmp_path / "share-backing" / name)) / "a.jpg")
        assert os.path.samefile(share / "scans", share / "photos")
        assert scan_names(make_scanner(share, follow=True)) == ["photos/a.jpg", "scans/a.jpg"]


def test_a_link_into_a_folder_that_is_left_out_is_entered(inbox: Path) -> None:
    write_file(inbox / ".hidden" / "a.jpg")
    (inbox / "shown").symlink_to(".hidden")
    assert scan_names(make_scanner(inbox, follow=True)) == ["shown/a.jpg"]


def test_an_inbox_that_is_itself_a_link_is_scanned(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    (inbox.parent / "link").symlink_to("inbox")
    assert scan_names(make_scanner(inbox.parent / "link")) == ["a.jpg"]


@pytest.mark.parametrize("follow", [False, True])
def test_a_missing_inbox_is_away_and_taken_up_when_it_comes(inbox: Path, follow: bool) -> None:
    write_file(inbox / "a.jpg")
    scanner = make_scanner(inbox, follow=follow)
    scan_names(scanner)
    os.rename(inbox, inbox.parent / "elsewhere")
    assert scanner.scan() == InboxUnavailable(f"{inbox}: No such file or directory")
    inbox.write_text("a file", "utf-8")
    assert scanner.scan() == InboxUnavailable(f"{inbox}: Not a directory")
    inbox.unlink()
    os.rename(inbox.parent / "elsewhere", inbox)
    assert scan_names(scanner) == []


class FailingScandir:
    """A folder whose entries cannot be read to the end."""

    def __enter__(self) -> "FailingScandir":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> "FailingScandir":
        return self

    def __next__(self) -> object:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_subfolder_that_cannot_be_read_keeps_what_is_known_of_it(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg"):
        write_file(inbox / name)
    scanner = make_scanner(inbox)
    scan_names(scanner)
    real_open, scandir = os.open, os.scandir

    def failing(folder: int) -> object:
        return FailingScandir() if os.readlink(f"/proc/self/fd/{folder}").endswith("/sub") else scandir(folder)

    def refused(path: str, flags: int) -> int:
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags)

    with monkeypatch.context() as failure:
        failure.setattr(os, *(("scandir", failing) if when == "read" else ("open", refused)))
        os.unlink(inbox / "a.jpg")
        assert scan_names(scanner) == []
    write_file(inbox / "a.jpg")
    assert scan_names(scanner) == ["a.jpg"]


def test_a_file_with_a_too_long_path_is_not_silently_missed(inbox: Path) -> None:
    """A folder that may be read but not entered (chmod -R 644) is similar: only its names are known."""
    folder, above = os.open(inbox, os.O_RDONLY), ""
    # PATH_MAX is 4096 (limits.h).
    while len(f"{inbox}/{above}") < 3900:
        os.mkdir("d" * 100, dir_fd=folder)
        folder, last = os.open("d" * 100, os.O_RDONLY, dir_fd=folder), folder
        os.close(last)
        above += "d" * 100 + "/"
    for name in ("a.jpg", f"{'b' * 200}.jpg", f"{'c' * 200}.jpg"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    scanner = make_scanner(inbox)
    assert scan_names(scanner) == [f"{above}a.jpg"]
    assert scanner.unreadable_folders == (above,)


def test_a_folder_that_vanishes_during_the_scan_is_skipped(inbox: Path) -> None:
    write_file(inbox / "a.jpg")
    write_file(inbox / "sub" / "b.jpg")
    sightings = make_scanner(inbox).scan()
    assert not isinstance(sightings, InboxUnavailable)
    names = [next(sightings).relative]
    os.unlink(inbox / "sub" / "b.jpg")
    os.rmdir(inbox / "sub")
    assert [*names, *(sighting.relative for sighting in sightings)] == ["a.jpg"]


@pytest.mark.untraced
def test_many_known_files_are_walked_in_no_time(inbox: Path) -> None:
    for folder in range(20):
        (inbox / str(folder)).mkdir()
        for number in range(250):
            os.close(os.open(inbox / str(folder) / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
    scanner = make_scanner(inbox)
    assert len(scan_names(scanner)) == 5000
    assert scan_names(scanner) == []


def test_a_folder_with_a_known_files_name_and_inode_is_entered(inbox: Path) -> None:
    write_file(inbox / "a.jpg" / "b.jpg")
    scanner = make_scanner(inbox)
    scanner.load_known([("a.jpg", Stamp((inbox / "a.jpg").stat().st_ino, 7, 1))])
    assert "a.jpg/b.jpg" in scan_names(scanner)


def test_a_known_file_now_excluded_is_not_reported_even_if_it_changes(inbox: Path) -> None:
    status = write_file(inbox / "a.tif").stat()
    scanner = make_scanner(inbox)
    scanner.load_known([("a.tif", Stamp(status.st_ino, 7, status.st_mtime_ns))])
    assert scan_names(scanner) == scan_names(scanner, full=True) == []
    write_file(inbox / "b.part")
    os.replace(inbox / "b.part", inbox / "a.tif")
    assert scan_names(scanner, "a.tif") == []


def test_removed_files_are_forgotten_though_as_many_arrived(inbox: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        write_file(inbox / name)
    scanner = make_scanner(inbox)
    scan_names(scanner)
    inode = (inbox / "a.jpg").stat().st_ino
    (inbox / "a.jpg").rename(inbox / "c.jpg")
    assert scan_names(scanner) == ["c.jpg"]
    (inbox / "c.jpg").rename(inbox / "a.jpg")
    assert (inbox / "a.jpg").stat().st_ino == inode
    assert scan_names(scanner) == ["a.jpg"]


@pytest.mark.parametrize("full", [False, True])
def test_an_unreadable_known_file_hides_no_later_file(tmp_path: Path, full: bool) -> None:
    with mount_share(tmp_path, "untyped", "ill=b.jpg") as inbox:
        inodes = [write_file(tmp_path / "share-backing" / name).stat().st_ino for name in ("a.jpg", "b.jpg", "c.jpg")]
        scanner = make_scanner(inbox)
        scanner.load_known([("b.jpg", Stamp(inodes[1], 7, 1))])
        assert scan_names(scanner, full=full) == ["a.jpg", "c.jpg"]
        assert scanner.unreadable_folders == (("",) if full else ())


def full_scan_pattern(seconds: float, every: float, *, listening: bool) -> list[bool]:
    """Return which of 21 scans, one every ``every`` seconds, are full if a full one takes ``seconds``."""
    looks, full_scans = FullScanTimer(every), []
    for _ in range(21):
        full_scans.append(looks.is_due(listening=listening))
        looks.record_scan(seconds if full_scans[-1] else None)
    return full_scans


def test_without_inotify_each_scan_is_full_within_five_percent_of_time() -> None:
    assert full_scan_pattern(0.1, 10, listening=False) == [True] * 21
    assert full_scan_pattern(0.6, 10, listening=False) == [scan % 2 == 0 for scan in range(21)]
    assert full_scan_pattern(9.0, 10, listening=False) == [scan % 18 == 0 for scan in range(21)]


def test_with_inotify_each_tenth_scan_is_full() -> None:
    assert full_scan_pattern(0.1, 60, listening=True) == [scan % 10 == 0 for scan in range(21)]
