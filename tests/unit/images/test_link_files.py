"""Link files: which URLs are accepted; no link file raises an exception or is fetched."""

import os
import plistlib
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.link_files import ValidLink, inspect_link, is_link_file
from picwish_watchd.job import ErrorCode
from tests.support.race_hooks import run_after_call

URL = "https://shop.example/cat%20one.jpg?size=2&q=%C3%BC#top"
UNREADABLE = Path("/sys/class/net/lo/speed")
BINARY_PLIST = plistlib.dumps({"URL": URL}, fmt=plistlib.FMT_BINARY)
XML_PLIST = plistlib.dumps({"URL": URL})


def write_file(folder: Path, data: bytes, name: str = "product.url") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def shortcut(url: str) -> bytes:
    return f"[InternetShortcut]\r\nURL={url}\r\n".encode()


def inspect_link_error(path: Path, *, final: bool = False) -> str:
    verdict = inspect_link(path, final=final)
    assert isinstance(verdict, Rejected), verdict
    assert verdict.problem.code == ErrorCode.BAD_REQUEST
    return verdict.problem.message


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.url", shortcut(URL)),
        ("a.URL", b"\xef\xbb\xbf" + shortcut(URL)),
        ("a.url", shortcut(URL).decode().encode("utf-16")),
        (
            "a.url",
            "[x]\nURL=http://no\n[ INTERNETSHORTCUT ]\nIconFile=größe\n  url = ".encode("latin-1") + URL.encode(),
        ),
        ("a.url", b'[InternetShortcut]\nBASEURL=x\nURL="' + URL.encode() + b'"'),
        ("a.url", b"[Desktop Entry]\nType=Link\nURL=" + URL.encode()),
        ("a.webloc", XML_PLIST),
        ("a.WEBLOC", BINARY_PLIST),
    ],
)
def test_a_link_file_of_any_writer_is_read(name: str, data: bytes, tmp_path: Path) -> None:
    path = write_file(tmp_path, data, name)
    assert is_link_file(path)
    assert inspect_link(path) == ValidLink(URL, sha256(URL.encode()).hexdigest(), stamp_of(path.stat()))


@pytest.mark.parametrize("url", ["oss://bucket/cat.jpg", "HTTP://h/", "http://[::1]:80/x", "https://" + "h" * 504])
def test_http_https_and_oss_are_taken(url: str, tmp_path: Path) -> None:
    assert isinstance(inspect_link(write_file(tmp_path, shortcut(url))), ValidLink)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://" + "h" * 505, "513 characters; PicWish takes at most 512"),
        ("https://h/cat one.jpg", "not percent-encoded"),
        ("https://h/größe.jpg", "not percent-encoded"),
        ("https://h/100%", "not percent-encoded"),
        ("https://h/\x1b[2J", "not percent-encoded"),
        ("ftp://h/cat.jpg", "of the kind ftp; PicWish takes http, https and oss"),
        ("file:///etc/passwd", "of the kind file"),
        ("javascript:alert(1)", "of the kind javascript"),
        ("cat.jpg", "of the kind none"),
        ("https:///cat.jpg", "without a valid host"),
        ("https://h:99999/", "without a valid host"),
        ("https://h:0/", "without a valid host"),
        ("https://[::1/", "without a valid host"),
        ("", "holds no URL"),
    ],
)
def test_any_other_url_is_a_bad_request_with_its_reason(url: str, why: str, tmp_path: Path) -> None:
    assert why in inspect_link_error(write_file(tmp_path, shortcut(url)))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.url", b"URL=http://h/ in no section"),
        ("a.url", b"\xff\xfe\0"),
        ("a.webloc", b"not a property list"),
        ("a.webloc", XML_PLIST[:-20]),
        ("a.webloc", BINARY_PLIST[:-20]),
        ("a.webloc", plistlib.dumps(["URL", URL])),
        ("a.webloc", plistlib.dumps({"URL": 7})),
        (
            "a.webloc",
            b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
            b"<plist><dict><key>URL</key><string>&b;</string></dict></plist>",
        ),
    ],
)
def test_what_cannot_be_parsed_is_a_bad_request(name: str, data: bytes, tmp_path: Path) -> None:
    assert inspect_link_error(write_file(tmp_path, data, name)) == f"{name} holds no URL: save the link again"


def test_an_empty_link_file_is_waited_for_and_in_the_end_refused(tmp_path: Path) -> None:
    for data in (b"", b"\0\0"):
        path = write_file(tmp_path, data)
        assert inspect_link(path) == Incomplete("product.url is empty", stamp_of(path.stat()))
        assert inspect_link_error(path, final=True) == "product.url holds no URL: save the link again"


def test_a_large_file_is_not_parsed(tmp_path: Path) -> None:
    path = write_file(tmp_path, shortcut(URL) + b" " * 65_500)
    assert inspect_link_error(path) == "product.url has 65,580 bytes; a link file has at most 65,536"


def test_pipes_links_and_missing_files_are_distinguished(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.url")
    link = tmp_path / "link.url"
    link.symlink_to(write_file(tmp_path, shortcut(URL)))
    assert inspect_link_error(tmp_path / "pipe.url") == "pipe.url is a named pipe, not a file"
    assert inspect_link_error(link) == "link.url is a symbolic link, not a file"
    assert isinstance(inspect_link(link, follow_symlinks=True), ValidLink)
    assert inspect_link(tmp_path / "away.url") == Missing()


@pytest.mark.skipif(not UNREADABLE.exists(), reason="needs sysfs")
def test_a_link_file_that_cannot_be_read_is_unreadable() -> None:
    assert inspect_link(UNREADABLE) == Unreadable("Invalid argument")


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("name", "whole"), [("a.url", shortcut(URL)), ("a.webloc", XML_PLIST), ("a.webloc", BINARY_PLIST)]
)
def test_no_damage_makes_it_raise(name: str, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / name

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 20))
    def damage(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(whole)
        for place, value in changes:
            data[place] = value
        path.write_bytes(data[: len(data) - cut])
        assert isinstance(inspect_link(path), ValidLink | Rejected | Incomplete)

    damage()


def test_a_link_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path, shortcut(URL))
    run_after_call(monkeypatch, "pread", lambda: path.write_bytes(shortcut("http://h/other.jpg")))
    assert inspect_link(path) == Changed()
