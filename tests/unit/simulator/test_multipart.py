"""Reading a multipart form while it arrives."""

import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from picwish_watchd.simulator.multipart import MAX_FIELD_SIZE, Form, FormError, MultipartParser, parse_form

BOUNDARY = "XyZ"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def multipart_body(*parts: tuple[str, bytes], end: bytes = b"--XyZ--\r\n") -> bytes:
    return b"".join(b"--XyZ\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end


def text_field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


IMAGE_HEADER = text_field("image_file") + '; filename="a.jpg"\r\nContent-Type: image/jpeg'


async def read_body(body: bytes, folder: Path, kind: str = MULTIPART, max_bytes: int = 10_000_000) -> Form:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    return await parse_form(kind, pieces(), folder, max_bytes)


@pytest.mark.untraced
@given(
    image=st.lists(st.sampled_from([b"\r\n", b"--", b"XyZ", b"\r\n--Xy", b"\x00\xff", b"abc"]), min_size=1).map(
        b"".join
    ),
    value=st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_a_form_is_read_the_same_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, image: bytes, value: str, cuts: list[int]
) -> None:
    assume(b"\r\n--XyZ" not in image)
    body = (
        b"preamble"
        + b"\r\n"
        + multipart_body((text_field("type"), value.encode()), (IMAGE_HEADER, image))
        + b"epilogue"
    )
    folder = tmp_path_factory.mktemp("forms")
    reader = MultipartParser(BOUNDARY.encode(), folder, 10_000)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        reader.feed(body[start:end])
    form = reader.finish()
    reader.close()
    assert form.fields == {"type": value}
    assert form.upload is not None
    assert form.upload.path.read_bytes() == image
    assert form.upload.size == len(image)
    assert form.upload.sha256 == hashlib.sha256(image).hexdigest()


async def test_a_body_that_comes_byte_by_byte_is_read_too(tmp_path: Path) -> None:
    reader = MultipartParser(b"XyZ", tmp_path, 100)
    for byte in multipart_body((text_field("sync"), b"1"), (IMAGE_HEADER, b"picture")):
        reader.feed(bytes([byte]))
    form = reader.finish()
    assert form.fields == {"sync": "1"}
    assert form.upload is not None
    assert form.upload.path.read_bytes() == b"picture"


async def test_the_last_of_several_fields_of_one_name_counts(tmp_path: Path) -> None:
    body = multipart_body(
        (text_field("type"), b"0"), (text_field("type"), b"1"), (IMAGE_HEADER, b"first"), (IMAGE_HEADER, b"second")
    )
    form = await read_body(body, tmp_path)
    assert form.fields == {"type": "1"}
    assert form.upload is not None
    assert form.upload.path.read_bytes() == b"second"
    assert len(list(tmp_path.iterdir())) == 1


async def test_an_empty_image_is_none(tmp_path: Path) -> None:
    form = await read_body(multipart_body((IMAGE_HEADER, b"")), tmp_path)
    assert form.upload is None
    assert list(tmp_path.iterdir()) == []


async def test_names_may_be_bare_or_escaped_and_boundaries_quoted(tmp_path: Path) -> None:
    body = multipart_body(("content-disposition: form-data;name=sync", b"1"), (text_field('a\\"b'), b"2"))
    form = await read_body(body, tmp_path, 'Multipart/Form-Data; charset=utf-8; boundary="XyZ"')
    assert form.fields == {"sync": "1", 'a"b': "2"}


async def test_an_urlencoded_form_is_taken(tmp_path: Path) -> None:
    form = await read_body(
        b"image_url=http%3A%2F%2Fa%2Fb&type=1&sync=", tmp_path, "application/x-www-form-urlencoded; charset=utf-8"
    )
    assert form == Form({"image_url": "http://a/b", "type": "1", "sync": ""})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "application/json"),
        (b"", ""),
        (multipart_body(), "multipart/form-data"),
        (multipart_body((IMAGE_HEADER, b"picture"), end=b""), MULTIPART),
        (multipart_body((IMAGE_HEADER, b"picture"))[:-10], MULTIPART),
        (b"nothing", MULTIPART),
        (multipart_body(("Content-Type: text/plain", b"nameless")), MULTIPART),
        (multipart_body(("Content-Disposition: form-data", b"nameless")), MULTIPART),
        (multipart_body((IMAGE_HEADER, b"picture"), end=b"--XyZw\r\n"), MULTIPART),
        (b"--XyZ" + b" " * (MAX_FIELD_SIZE + 1), MULTIPART),
        (b"--XyZ\r\nX: " + b"y" * (MAX_FIELD_SIZE + 1), MULTIPART),
    ],
)
async def test_what_is_no_form_is_400_and_leaves_no_file(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(FormError) as caught:
        await read_body(body, tmp_path, kind)
    assert caught.value.status == 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (multipart_body((IMAGE_HEADER, b"x" * 501)), MULTIPART),
        (multipart_body((text_field("type"), b"x" * (MAX_FIELD_SIZE + 1))), MULTIPART),
        (b"a=" + b"x" * MAX_FIELD_SIZE, "application/x-www-form-urlencoded"),
    ],
    ids=["image", "text", "urlencoded"],
)
async def test_what_is_too_large_is_413_and_leaves_no_file(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(FormError) as caught:
        await read_body(body, tmp_path, kind, max_bytes=500)
    assert caught.value.status == 413
    assert list(tmp_path.iterdir()) == []
