"""Walking: what is new or changed is seen, what is known costs nothing, and nothing is ever lost from sight."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from picwish_watchd.inbox.name_filter import JUNK, NameFilter
from picwish_watchd.inbox.scanner import Away, CloseLooks, Sighting, Walker
from picwish_watchd.job import Stamp
from tests.support.mounting import mounted
from tests.support.share import shared

PICTURES = NameFilter(["*.jpg", "*.png"], [])


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def walker(inbox: Path, names: NameFilter = PICTURES, *, recursive: bool = True, follow: bool = False) -> Walker:
    return Walker(str(inbox), names, recursive=recursive, follow_symlinks=follow)


def seen(walker: Walker, *touched: str, full: bool = False) -> list[str]:
    """The names of one walk's sightings, sorted."""
    found = walker.walk(touched, full=full)
    assert not isinstance(found, Away)
    return sorted(sighting.relative for sighting in found)


def put(path: Path, content: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_new_file_is_seen_once_with_its_stamp(inbox: Path) -> None:
    found = put(inbox / "sub" / "a.jpg").stat()
    walk = walker(inbox)
    sightings = walk.walk()
    assert not isinstance(sightings, Away)
    assert list(sightings) == [Sighting("sub/a.jpg", Stamp(found.st_ino, 7, found.st_mtime_ns))]
    assert seen(walk) == []
    assert seen(walk, full=True) == []


def test_a_file_replaced_by_another_one_is_seen_by_a_plain_walk(inbox: Path) -> None:
    put(inbox / "a.jpg")
    walk = walker(inbox)
    seen(walk)
    put(inbox / "b.part", b"picture")
    os.replace(inbox / "b.part", inbox / "a.jpg")
    assert seen(walk) == ["a.jpg"]


@pytest.mark.parametrize(("intact", "news"), [(True, ["a.jpg"]), (False, [])])
def test_nothing_counts_as_gone_that_a_walk_missed_while_the_inbox_was_away(
    inbox: Path, tmp_path: Path, intact: bool, news: list[str]
) -> None:
    """All files would be read and judged anew when the mount is back."""
    put(inbox / "a.jpg")
    walk = walker(inbox)
    seen(walk)
    os.rename(inbox / "a.jpg", tmp_path / "a.jpg")
    found = walk.walk(intact=lambda: intact)
    assert not isinstance(found, Away)
    assert list(found) == []
    os.rename(tmp_path / "a.jpg", inbox / "a.jpg")
    assert seen(walk) == news


def test_no_link_to_a_file_or_a_folder_leads_to_where_results_lie(inbox: Path, tmp_path: Path) -> None:
    """They would be taken for originals; a folder whose name only begins alike is none of those."""
    outbox = tmp_path / "outbox"
    put(outbox / "sub" / "ours.jpg")
    put(tmp_path / "outbox2" / "theirs.jpg")
    for name, target in (
        ("file.jpg", outbox / "sub" / "ours.jpg"),
        ("folder", outbox),
        ("below", outbox / "sub"),
        ("other.jpg", tmp_path / "outbox2" / "theirs.jpg"),
        ("others", tmp_path / "outbox2"),
    ):
        (inbox / name).symlink_to(target)
    walk = Walker(str(inbox), PICTURES, recursive=True, follow_symlinks=True, forbidden=[str(outbox)])
    assert seen(walk) == ["other.jpg", "others/theirs.jpg"]


def test_a_file_changed_in_place_is_seen_by_a_close_look_only(inbox: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(inbox / name)
    walk = walker(inbox)
    seen(walk)
    for name in ("a.jpg", "b.jpg"):
        put(inbox / name, b"another picture")
    assert seen(walk) == []
    assert seen(walk, "a.jpg") == ["a.jpg"]
    assert seen(walk, full=True) == ["b.jpg"]
    assert seen(walk, full=True) == []


def test_a_file_that_went_and_came_back_is_seen_again(inbox: Path) -> None:
    put(inbox / "a.jpg")
    walk = walker(inbox)
    seen(walk)
    os.rename(inbox / "a.jpg", inbox.parent / "a.jpg")
    assert seen(walk) == []
    os.rename(inbox.parent / "a.jpg", inbox / "a.jpg")
    assert seen(walk) == ["a.jpg"]


def test_a_file_that_went_is_forgotten_even_where_a_dangling_link_takes_its_place(inbox: Path) -> None:
    put(inbox / "a.jpg")
    walk = walker(inbox, follow=True)
    seen(walk)
    os.rename(inbox / "a.jpg", inbox.parent / "a.jpg")
    (inbox / "dangling.jpg").symlink_to("nowhere")
    assert seen(walk) == []
    os.rename(inbox.parent / "a.jpg", inbox / "a.jpg")
    assert seen(walk) == ["a.jpg"]


def test_what_the_journal_knows_is_not_seen_until_it_changes(inbox: Path) -> None:
    found = put(inbox / "a.jpg").stat()
    put(inbox / "b.jpg")
    walk = walker(inbox)
    walk.learn([("a.jpg", Stamp(found.st_ino, found.st_size, found.st_mtime_ns)), ("gone.jpg", Stamp(1, 2, 3))])
    assert seen(walk, full=True) == ["b.jpg"]


def test_a_file_that_was_forgotten_is_news(inbox: Path) -> None:
    put(inbox / "a.jpg")
    walk = walker(inbox)
    seen(walk)
    walk.forget("a.jpg")
    walk.forget("never-known.jpg")
    assert seen(walk) == ["a.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.jpg", "a.jpg.part", "A.JPG.PARTIAL", "a.jpg.tmp", "a.jpg.crdownload", "~$a.jpg", "a.jpg~",
        "Thumbs.db", "DESKTOP.INI", ".picwish-7.part", "a.filepart",
    ],
)  # fmt: skip
def test_junk_is_never_seen_whatever_include_says(inbox: Path, name: str) -> None:
    put(inbox / name)
    put(inbox / "a.jpg")
    assert seen(walker(inbox, NameFilter(["*"], []))) == ["a.jpg"]


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", ".git", "__MACOSX", "lost+found", "x.tmp"])
def test_junk_folders_are_not_entered(inbox: Path, folder: str) -> None:
    put(inbox / folder / "a.jpg")
    put(inbox / "deep" / folder.upper() / "a.jpg")
    assert seen(walker(inbox)) == []
    assert any(folder.lower() == pattern.lower() for pattern in JUNK) or folder[0] == "." or folder == "x.tmp"


def test_globs_know_no_case_and_one_with_a_slash_sees_the_path(inbox: Path) -> None:
    for name in ("A.JPG", "b.Png", "c.gif", "raw/D.jpg", "Raw/drafts/e.jpg", "web/f.jpg", "web/raw.jpg"):
        put(inbox / name)
    assert seen(walker(inbox)) == ["A.JPG", "Raw/drafts/e.jpg", "b.Png", "raw/D.jpg", "web/f.jpg", "web/raw.jpg"]
    no_raw = NameFilter(["*.jpg", "*.png"], ["RAW"])
    assert seen(walker(inbox, no_raw)) == ["A.JPG", "b.Png", "web/f.jpg", "web/raw.jpg"]
    no_drafts = NameFilter(["*.jpg"], ["raw/drafts"])
    assert seen(walker(inbox, no_drafts)) == ["A.JPG", "raw/D.jpg", "web/f.jpg", "web/raw.jpg"]
    web_only = NameFilter(["WEB/*.jpg"], ["web/raw*"])
    assert seen(walker(inbox, web_only)) == ["web/f.jpg"]
    assert seen(walker(inbox, NameFilter([], []))) == []


def test_without_recursion_folders_are_not_entered(inbox: Path) -> None:
    put(inbox / "a.jpg")
    put(inbox / "sub" / "b.jpg")
    assert seen(walker(inbox, recursive=False)) == ["a.jpg"]


def test_a_folder_named_like_a_picture_is_seen_once_and_entered(inbox: Path) -> None:
    put(inbox / "x.jpg" / "a.jpg")
    walk = walker(inbox)
    assert seen(walk) == ["x.jpg", "x.jpg/a.jpg"]
    put(inbox / "x.jpg" / "b.jpg")
    assert seen(walk, full=True) == ["x.jpg/b.jpg"]


def test_names_that_no_text_holds_are_seen(inbox: Path) -> None:
    names = [os.fsdecode(raw) for raw in (b"caf\xe9.jpg", b"new\nline.jpg", b"\xff.PNG", "日本.jpg".encode())]
    for name in names:
        put(inbox / name)
    assert seen(walker(inbox)) == sorted(names)


def test_pipes_sockets_and_links_are_seen_as_what_they_are_and_not_opened(inbox: Path) -> None:
    os.mkfifo(inbox / "pipe.jpg")
    put(inbox.parent / "a.jpg")
    (inbox / "link.jpg").symlink_to("../a.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inbox / "s.jpg"))
    sightings = walker(inbox).walk()
    assert not isinstance(sightings, Away)
    inodes = {sighting.relative: sighting.stamp.inode for sighting in sightings}
    assert inodes == {name: os.lstat(inbox / name).st_ino for name in ("pipe.jpg", "link.jpg", "s.jpg")}


def test_links_are_followed_when_told(inbox: Path) -> None:
    target = put(inbox.parent / "elsewhere" / "a.jpg")
    (inbox / "folder").symlink_to("../elsewhere")
    (inbox / "file.jpg").symlink_to("../elsewhere/a.jpg")
    assert seen(walker(inbox)) == ["file.jpg"]
    walk = walker(inbox, follow=True)
    assert seen(walk) == ["file.jpg", "folder/a.jpg"]
    assert seen(walk) == []
    target.write_bytes(b"another picture")
    assert seen(walk, full=True) == ["file.jpg", "folder/a.jpg"]


def test_links_that_lead_in_circles_are_not_gone_round(inbox: Path) -> None:
    put(inbox / "sub" / "a.jpg")
    (inbox / "root").symlink_to(".")
    (inbox / "sub" / "up").symlink_to("..")
    (inbox / "sub" / "same").symlink_to("../sub")
    (inbox / "self").symlink_to("self")
    assert seen(walker(inbox, follow=True)) == ["sub/a.jpg"]


def test_folders_that_are_linked_to_one_another_are_each_walked_once_by_their_own_name(inbox: Path) -> None:
    """By each way through nine of them it would be a million folders."""
    names = [f"folder{number}" for number in range(9)]
    for name in names:
        put(inbox / name / "a.jpg")
        for other in names:
            (inbox / name / f"0-to-{other}").symlink_to(f"../{other}")
    linked = walker(inbox, follow=True)
    assert seen(linked) == [f"{name}/a.jpg" for name in names]
    assert linked.folders == 10
    assert len(linked.again) == 81
    assert seen(linked) == []


def test_a_folder_elsewhere_is_walked_by_one_of_its_links_and_the_same_one_each_time(inbox: Path) -> None:
    put(inbox.parent / "elsewhere" / "sub" / "a.jpg")
    for name in ("c", "a", "b"):
        (inbox / name).symlink_to("../elsewhere")
    (inbox / "d").symlink_to("../elsewhere/sub")
    linked = walker(inbox, follow=True)
    assert seen(linked) == ["a/sub/a.jpg"]
    assert sorted(linked.again) == ["b", "c", "d"]
    put(inbox.parent / "elsewhere" / "b.jpg")
    assert seen(linked) == ["a/b.jpg"]


def test_folders_that_a_share_of_several_disks_numbers_alike_are_all_walked(tmp_path: Path) -> None:
    with shared(tmp_path) as share, ExitStack() as disks:
        for name in ("scans", "photos"):
            put(disks.enter_context(mounted(tmp_path / "share-backing" / name)) / "a.jpg")
        assert os.path.samefile(share / "scans", share / "photos")
        assert seen(walker(share, follow=True)) == ["photos/a.jpg", "scans/a.jpg"]


def test_a_link_into_a_folder_that_is_left_out_is_entered(inbox: Path) -> None:
    put(inbox / ".hidden" / "a.jpg")
    (inbox / "shown").symlink_to(".hidden")
    assert seen(walker(inbox, follow=True)) == ["shown/a.jpg"]


def test_an_inbox_that_is_itself_a_link_is_walked(inbox: Path) -> None:
    put(inbox / "a.jpg")
    (inbox.parent / "link").symlink_to("inbox")
    assert seen(walker(inbox.parent / "link")) == ["a.jpg"]


@pytest.mark.parametrize("follow", [False, True])
def test_a_missing_inbox_is_away_and_taken_up_when_it_comes(inbox: Path, follow: bool) -> None:
    put(inbox / "a.jpg")
    walk = walker(inbox, follow=follow)
    seen(walk)
    os.rename(inbox, inbox.parent / "elsewhere")
    assert walk.walk() == Away(f"{inbox}: No such file or directory")
    inbox.write_text("a file", "utf-8")
    assert walk.walk() == Away(f"{inbox}: Not a directory")
    inbox.unlink()
    os.rename(inbox.parent / "elsewhere", inbox)
    assert seen(walk) == []


class Failing:
    """A folder whose entries cannot be read to their end."""

    def __enter__(self) -> "Failing":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> "Failing":
        return self

    def __next__(self) -> object:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_subfolder_that_cannot_be_read_keeps_what_is_known_of_it(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg"):
        put(inbox / name)
    walk = walker(inbox)
    seen(walk)
    real_open, scandir = os.open, os.scandir

    def failing(folder: int) -> object:
        return Failing() if os.readlink(f"/proc/self/fd/{folder}").endswith("/sub") else scandir(folder)

    def refused(path: str, flags: int) -> int:
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags)

    with monkeypatch.context() as failure:
        failure.setattr(os, *(("scandir", failing) if when == "read" else ("open", refused)))
        os.unlink(inbox / "a.jpg")
        assert seen(walk) == []
    put(inbox / "a.jpg")
    assert seen(walk) == ["a.jpg"]


def test_a_file_whose_path_is_too_long_to_be_asked_for_is_not_missed_in_silence(inbox: Path) -> None:
    """The same as in a folder that may be read and not entered (chmod -R 644), whose names are all that is told."""
    folder, above = os.open(inbox, os.O_RDONLY), ""
    while len(f"{inbox}/{above}") < 3900:  # limits.h: PATH_MAX is 4096
        os.mkdir("d" * 100, dir_fd=folder)
        folder, last = os.open("d" * 100, os.O_RDONLY, dir_fd=folder), folder
        os.close(last)
        above += "d" * 100 + "/"
    for name in ("a.jpg", f"{'b' * 200}.jpg", f"{'c' * 200}.jpg"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    walk = walker(inbox)
    assert seen(walk) == [f"{above}a.jpg"]
    assert walk.unread == (above,)


def test_a_folder_that_vanishes_during_the_walk_is_passed_over(inbox: Path) -> None:
    put(inbox / "a.jpg")
    put(inbox / "sub" / "b.jpg")
    sightings = walker(inbox).walk()
    assert not isinstance(sightings, Away)
    found = [next(sightings).relative]
    os.unlink(inbox / "sub" / "b.jpg")
    os.rmdir(inbox / "sub")
    assert [*found, *(sighting.relative for sighting in sightings)] == ["a.jpg"]


@pytest.mark.untraced
def test_many_known_files_are_walked_in_no_time(inbox: Path) -> None:
    for folder in range(20):
        (inbox / str(folder)).mkdir()
        for number in range(250):
            os.close(os.open(inbox / str(folder) / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
    walk = walker(inbox)
    assert len(seen(walk)) == 5000
    assert seen(walk) == []


def test_a_folder_that_took_a_known_file_s_name_and_inode_is_entered(inbox: Path) -> None:
    put(inbox / "a.jpg" / "b.jpg")
    walk = walker(inbox)
    walk.learn([("a.jpg", Stamp((inbox / "a.jpg").stat().st_ino, 7, 1))])
    assert "a.jpg/b.jpg" in seen(walk)


def test_a_known_file_that_patterns_leave_out_by_now_is_no_news_even_when_it_changes(inbox: Path) -> None:
    found = put(inbox / "a.tif").stat()
    walk = walker(inbox)
    walk.learn([("a.tif", Stamp(found.st_ino, 7, found.st_mtime_ns))])
    assert seen(walk) == seen(walk, full=True) == []
    put(inbox / "b.part")
    os.replace(inbox / "b.part", inbox / "a.tif")
    assert seen(walk, "a.tif") == []


def test_as_many_files_came_as_went_and_those_that_went_are_forgotten(inbox: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(inbox / name)
    walk = walker(inbox)
    seen(walk)
    inode = (inbox / "a.jpg").stat().st_ino
    (inbox / "a.jpg").rename(inbox / "c.jpg")
    assert seen(walk) == ["c.jpg"]
    (inbox / "c.jpg").rename(inbox / "a.jpg")
    assert (inbox / "a.jpg").stat().st_ino == inode
    assert seen(walk) == ["a.jpg"]


@pytest.mark.parametrize("full", [False, True])
def test_a_known_file_that_nothing_can_be_learnt_of_hides_none_that_is_listed_after_it(
    tmp_path: Path, full: bool
) -> None:
    with shared(tmp_path, "untyped", "ill=b.jpg") as inbox:
        inodes = [put(tmp_path / "share-backing" / name).stat().st_ino for name in ("a.jpg", "b.jpg", "c.jpg")]
        walk = walker(inbox)
        walk.learn([("b.jpg", Stamp(inodes[1], 7, 1))])
        assert seen(walk, full=full) == ["a.jpg", "c.jpg"]
        assert walk.unread == (("",) if full else ())


def close_looks(seconds: float, every: float, *, listening: bool) -> list[bool]:
    """Which of 21 walks, one ``every`` so many seconds, look closely if that takes ``seconds``."""
    looks, found = CloseLooks(every), []
    for _ in range(21):
        found.append(looks.due(listening=listening))
        looks.ended(seconds if found[-1] else None)
    return found


def test_each_walk_looks_closely_where_nobody_tells_of_changes_unless_that_takes_a_twentieth_of_the_time() -> None:
    assert close_looks(0.1, 10, listening=False) == [True] * 21
    assert close_looks(0.6, 10, listening=False) == [walk % 2 == 0 for walk in range(21)]
    assert close_looks(9.0, 10, listening=False) == [walk % 18 == 0 for walk in range(21)]


def test_each_tenth_walk_looks_closely_where_the_kernel_tells_of_changes() -> None:
    assert close_looks(0.1, 60, listening=True) == [walk % 10 == 0 for walk in range(21)]
