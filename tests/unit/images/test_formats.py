"""Recognizing a file's format by its first bytes."""

import pytest

from picwish_watchd.images.formats import HEAD_SIZE, Format, can_become_image, describe_text, detect_format
from tests.support.sample_images import KINDS, format_of, make_image


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_recognised_by_content(kind: str) -> None:
    assert detect_format(make_image(kind)[:HEAD_SIZE]) == Format(format_of(kind))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"GIF89a....", "a GIF image"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF image"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a Canon camera raw file"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"II*\0\x10\0\0\0CR\x02\0", "a Canon camera raw file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\xff\x0a\0", "a JPEG XL image"),
        (b"\0\0\1\0\1\0", "an icon"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing"),
        (b"\0" * 128 + b"DICM", "a DICOM image"),
    ],
)
def test_a_known_kind_that_picwish_does_not_take_is_named(head: bytes, name: str) -> None:
    assert detect_format(head) == name


@pytest.mark.parametrize(
    "head", [b"", b"hello", b"BMW is a maker of cars, not of bitmaps", b"RIFF\0\0\0\0WAVEfmt ", b"\0" * 64]
)
def test_what_is_no_picture_is_not_recognised(head: bytes) -> None:
    assert detect_format(head) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_bytes_of_a_picture_are_waited_for(kind: str) -> None:
    data = make_image(kind)
    for length in range(19):
        assert detect_format(data[:length]) == Format(format_of(kind)) or can_become_image(data[:length]), length


def test_a_hole_full_of_zeros_is_waited_for_and_a_text_is_not() -> None:
    assert can_become_image(b"\0" * HEAD_SIZE)
    assert not can_become_image(b"hello")
    assert not can_become_image(b"BMW is a maker of cars, not of bitmaps")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\n<!DOCTYPE html><p>", "an HTML page"),
        (b"\xef\xbb\xbf<html>", "an HTML page"),
        (b"<Error><Code>AccessDenied", "an XML document"),
        (b'{"status": 404}', "a JSON document"),
        (b"not found", "a text"),
        (b"\1\2\3", None),
        (b"", None),
    ],
)
def test_text_formats_are_distinguished(head: bytes, name: str | None) -> None:
    assert describe_text(head) == name


def test_formats_know_their_extensions_and_media_types() -> None:
    assert [each.extension for each in Format] == ["jpg", "png", "webp", "bmp", "tif"]
    assert [each.mime for each in Format] == ["image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"]
    assert Format.JPEG.allows_suffix(".JPEG")
    assert Format.JPEG.allows_suffix("jfif")
    assert Format.TIFF.allows_suffix("TIFF")
    assert Format.BMP.allows_suffix("dib")
    assert not Format.PNG.allows_suffix("jpg")
    assert not Format.PNG.allows_suffix("")
    assert Format.from_suffix(".Tiff") is Format.TIFF
    assert Format.from_suffix("gif") is None
