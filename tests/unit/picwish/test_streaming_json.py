"""Responses parsed while they arrive, compared with the standard library's parser."""

import base64
import json
import os
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.picwish.streaming_json import (
    MAX_IMAGE_URL_SIZE,
    MAX_JSON_SIZE,
    Base64Decoder,
    MalformedResponseError,
    StreamingResponseParser,
)

IMAGE = "the picture"

texts = st.text(max_size=30) | st.sampled_from(
    ['"image":', '{"data":{"image":"QUJD"}}', "\\", '\\"', "image", "data", 'a"image": "x', "\\u0022"]
)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
image_bytes = st.binary(min_size=1, max_size=3000)


def read_in_pieces(text: bytes, cuts: list[int]) -> tuple[StreamingResponseParser, bytes]:
    """Feed the text to a parser in pieces that end at the cuts, and return the parser."""
    reader = StreamingResponseParser()
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return reader, b"".join(reader.feed(text[a:b]) for a, b in pairwise(edges))


def spell_json_string(value: str, style: int) -> str:
    """Return a JSON string in one of the spellings that servers use."""
    text = json.dumps(value)
    if style == 1:
        return text.replace("/", "\\/")
    if style == 2:
        return '"' + "".join(f"\\u{ord(c):04x}" for c in value) + '"'
    return text


@pytest.mark.untraced
@settings(max_examples=80, deadline=None)
@given(
    before=st.dictionaries(texts.filter(lambda k: k != "image"), plain_json, max_size=4),
    after=st.dictionaries(texts.filter(lambda k: k != "image"), plain_json, max_size=4),
    around=st.dictionaries(texts.filter(lambda k: k != "data"), plain_json, max_size=4),
    picture=image_bytes,
    style=st.integers(0, 2),
    ascii_only=st.booleans(),
    cuts=st.lists(st.integers(0, 8000), max_size=12),
    data=st.data(),
)
def test_the_image_is_separated_from_all_other_fields(
    before: dict[str, Any],
    after: dict[str, Any],
    around: dict[str, Any],
    picture: bytes,
    style: int,
    ascii_only: bool,
    cuts: list[int],
    data: st.DataObject,
) -> None:
    after = {k: v for k, v in after.items() if k not in before}
    inner = before | {"image": IMAGE} | after
    document = json.dumps(around | {"data": inner}, ensure_ascii=ascii_only)
    encoded = base64.b64encode(picture).decode()
    key = data.draw(st.sampled_from(["image", "im\\u0061ge"]))
    text = document.replace(f'"image": "{IMAGE}"', f'"{key}": {spell_json_string(encoded, style)}').encode(
        "utf-8", "replace"
    )
    reader, decoded = read_in_pieces(text, cuts)
    assert decoded == picture
    assert reader.is_image_complete
    envelope = reader.finish()
    expected = json.loads(text.decode("utf-8", "replace"))["data"]
    expected.pop("image", None)
    assert envelope.data == expected


@pytest.mark.untraced
@settings(max_examples=80, deadline=None)
@given(document=plain_json, cuts=st.lists(st.integers(0, 500), max_size=10), rubbish=st.booleans())
def test_an_answer_without_a_picture_is_what_the_standard_library_reads(
    document: object, cuts: list[int], rubbish: bool
) -> None:
    whole = {"status": "200", "message": "ok", "data": {"x": document}}
    reader, decoded = read_in_pieces(json.dumps(whole).encode() + (b"\n<!-- rubbish" if rubbish else b""), cuts)
    assert decoded == b""
    envelope = reader.finish()
    assert (envelope.status, envelope.message, envelope.data) == (200, "ok", {"x": document})


@pytest.mark.untraced
@settings(max_examples=80, deadline=None)
@given(text=st.binary(max_size=300) | texts.map(str.encode), cuts=st.lists(st.integers(0, 300), max_size=10))
def test_anything_at_all_is_read_or_called_garbled(text: bytes, cuts: list[int]) -> None:
    for start in (b"", b'{"data": {"image": "', b'{"data": '):
        try:
            reader, _ = read_in_pieces(start + text, cuts)
            reader.finish()
        except MalformedResponseError as error:
            assert str(error)  # noqa: PT017


@pytest.mark.untraced
@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=400),
    cuts=st.lists(st.integers(0, 700), max_size=10),
    urlsafe=st.booleans(),
    padded=st.booleans(),
    lines=st.integers(0, 80),
)
def test_base64_is_decoded_as_the_standard_library_does(
    data: bytes, cuts: list[int], urlsafe: bool, padded: bool, lines: int
) -> None:
    text = base64.urlsafe_b64encode(data) if urlsafe else base64.b64encode(data)
    text = text if padded else text.rstrip(b"=")
    if lines:
        text = b"\r\n".join(text[i : i + lines] for i in range(0, len(text), lines))
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    decoder = Base64Decoder()
    decoded = b"".join(decoder.feed(text[a:b]) for a, b in pairwise(edges))
    assert decoded + decoder.finish() == data


@settings(max_examples=100, deadline=None)
@given(text=st.text("AB+/-_= \n!é", max_size=20).map(str.encode))
def test_invalid_base64_is_recognized(text: bytes) -> None:
    letters = b"".join(text.split()).replace(b"-", b"+").replace(b"_", b"/")
    valid = re.fullmatch(rb"(?:[A-Z+/]{4})*(?:[A-Z+/]{2}={0,2}|[A-Z+/]{3}=?)?", letters)
    decoder = Base64Decoder()
    try:
        decoded = decoder.feed(text) + decoder.finish()
    except ValueError:
        assert not valid
    else:
        assert valid
        assert decoded == base64.b64decode(letters.rstrip(b"=") + b"==")


@pytest.mark.parametrize(
    "text", [b"A", b"AAAAA", b"A=A=", b"AA==AA==", b"AAAA=", b"AA===", b"=", b"AA=A", b"A\xc3\xa9=="]
)
def test_damaged_base64_is_refused(text: bytes) -> None:
    decoder = Base64Decoder()
    with pytest.raises(ValueError):
        decoder.feed(text) + decoder.finish()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64])
def test_every_place_of_a_cut_is_the_same(step: int) -> None:
    picture = os.urandom(1000)
    image = "data:image/png;base64," + base64.b64encode(picture).decode()
    data = f'{{"task_id": "a\\u0062", "image": {spell_json_string(image, 1)}, "state": 1}}'
    text = f'{{"data": {data}, "status": 200}}'.encode()
    reader, decoded = read_in_pieces(text, list(range(0, len(text), step)))
    assert decoded == picture
    assert reader.finish().data == {"task_id": "ab", "state": 1}
    assert reader.task_id == "ab"


@pytest.mark.parametrize("style", [0, 1, 2])
@pytest.mark.parametrize("url", ["https://x.example/a?b=c&d=%2F", "HTTP://X", "oss://bucket/key", "x:" + "y" * 9000])
def test_an_address_stays_a_value(url: str, style: int) -> None:
    url = url[: MAX_IMAGE_URL_SIZE // 6]
    reader, decoded = read_in_pieces(
        f'{{"data": {{"image": {spell_json_string(url, style)}}}}}'.encode(), list(range(0, 9999, 10))
    )
    assert decoded == b""
    assert not reader.has_image_data
    assert reader.finish().image_url == url


def test_an_address_without_end_is_a_flaw() -> None:
    reader, _ = read_in_pieces(
        b'{"data": {"image": "http://%b", "state": 1}}' % (b"x" * (MAX_IMAGE_URL_SIZE + 1)), list(range(0, 20000, 999))
    )
    envelope = reader.finish()
    assert (envelope.image_url, envelope.data) == (None, {"state": 1})
    assert "16384" in (reader.image_defect or "")


@pytest.mark.parametrize(
    "where", ['{"image": "QUJD"}', '{"data": [{"image": "QUJD"}]}', '{"data": {"x": {"image": "QUJD"}}}']
)
def test_only_the_picture_of_the_task_is_turned_aside(where: str) -> None:
    reader, decoded = read_in_pieces(where.encode(), [])
    assert decoded == b""
    assert reader.is_complete


def test_a_byte_order_mark_and_spaces_are_passed_over() -> None:
    reader, _ = read_in_pieces(b'\xef\xbb\xbf \r\n{"status": 200}', [1, 2, 3, 4])
    assert reader.finish().status == 200


def test_text_in_another_encoding_does_not_spoil_the_answer() -> None:
    reader, _ = read_in_pieces('{"status": 200, "message": "成功", "data": {"task_id": "x"}}'.encode("gbk"), [])
    assert reader.finish().data == {"task_id": "x"}


@pytest.mark.parametrize(
    "text",
    [
        b"<html>",
        b"[1]",
        b"]",
        b'"x"',
        b"nonsense",
        b'{"a": }',
        b'{"a": 1]',
        b'{"a\\x": 1}',
        b'{"\\u12": "and more"}',
        b'{"data": {"image": "QUJD", "image": "QUJD"}}',
        b'{"data": {"image": "QU\\u12JD and more"}}',
        b'{"data": {"image": "QUJD"',
        b'{"a":' * 100,
        b'{"a": "%b"}' % (b"x" * MAX_JSON_SIZE),
        b'{"a": %b}' % (b"1" * 5000),
        b"",
        b" \n",
    ],
)
def test_what_is_not_the_promised_json_is_garbled(text: bytes) -> None:
    for cuts in ([], list(range(0, min(len(text), 9000), 7))):
        with pytest.raises(MalformedResponseError):
            read_in_pieces(text, cuts)[0].finish()


def test_a_task_id_is_known_before_the_answer_ends() -> None:
    reader, _ = read_in_pieces(b'{"data": {"task_id": "abc", "image": "' + b"A" * 5000, [])
    assert reader.task_id == "abc"
    assert reader.has_image_data
    assert not reader.is_image_complete
    with pytest.raises(MalformedResponseError):
        reader.finish()


@pytest.mark.untraced
def test_a_long_string_in_tiny_pieces_takes_no_long_time() -> None:
    text = b'{"message": "' + b"x" * 100_000 + b'"}'
    reader, _ = read_in_pieces(text, list(range(len(text))))
    assert reader.is_complete
