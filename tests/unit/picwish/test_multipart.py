"""The form of a POST, and the file for a result in its response."""

import asyncio
import threading
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.picwish.multipart import CHUNK_SIZE, CreateRequest, MultipartBody, UploadPhase
from picwish_watchd.picwish.sink import BUFFER_SIZE, Sink, SinkError, TooLargeError


async def read_pieces(body: MultipartBody) -> list[bytes]:
    body.allow_sending()
    return [piece async for piece in body]


@pytest.mark.untraced
@given(image=st.binary(max_size=400_000))
def test_the_body_is_the_form_in_small_pieces_of_the_announced_length(image: bytes) -> None:
    body = MultipartBody(CreateRequest(image=image, filename="a.png", content_type="image/png", type=1), lambda: None)
    parts = asyncio.run(read_pieces(body))
    whole = b"".join(parts)
    assert len(whole) == body.length
    assert body.image_size == len(image)
    assert max(map(len, parts)) <= max(CHUNK_SIZE, len(parts[0]))
    form = message_from_bytes(f"Content-Type: {body.content_type}\r\n\r\n".encode() + whole)
    fields = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True) for p in form.get_payload()}  # type: ignore[union-attr]
    assert (fields["type"], fields["return_type"], fields["sync"]) == (b"1", b"1", b"0")
    assert image in whole


async def test_the_end_is_a_piece_of_its_own_and_decides_the_phase() -> None:
    phases_when_sent: list[UploadPhase] = []
    body = MultipartBody(CreateRequest(image=b"x" * (CHUNK_SIZE + 1)), lambda: phases_when_sent.append(body.phase))
    assert body.phase is UploadPhase.NOT_STARTED
    body.allow_sending()
    phases = [(len(piece), body.phase) async for piece in body]
    assert [phase for _, phase in phases] == [UploadPhase.INCOMPLETE] * 3 + [UploadPhase.SENT]
    assert phases[-1][0] < 100
    assert phases_when_sent == [UploadPhase.SENT]


async def test_a_body_is_sent_once_and_only_when_permitted() -> None:
    body = MultipartBody(CreateRequest(image=b"x"), lambda: None)
    with pytest.raises(RuntimeError):
        _ = [piece async for piece in body]
    await read_pieces(body)
    with pytest.raises(RuntimeError):
        _ = [piece async for piece in body]


def test_a_memoryview_of_any_shape_is_counted_in_bytes() -> None:
    view = memoryview(bytearray(16)).cast("I")
    assert MultipartBody(CreateRequest(image=view), lambda: None).image_size == 16


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"image": b"x", "image_url": "https://x.example"},
        {"image": b"x", "filename": 'a"b.jpg'},
        {"image": b"x", "filename": "ü.jpg"},
        {"image": b"x", "filename": "a\r\nb"},
        {"image": b"x", "filename": "../x"},
        {"image": b"x", "content_type": "image/png\r\nX: y"},
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_when_it_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        CreateRequest(**wrong)  # type: ignore[arg-type]


def test_a_request_does_not_print_its_picture_or_address() -> None:
    assert "secret" not in repr(CreateRequest(image=b"secret"))
    assert "secret" not in repr(CreateRequest(image_url="https://x.example/secret"))


async def test_a_sink_takes_no_more_than_its_limit(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "f", 10)
    await sink.write(b"x" * 10)
    with pytest.raises(TooLargeError):
        await sink.write(b"x")
    assert await sink.finish() == 10
    sink.close(keep=True)
    assert (tmp_path / "f").read_bytes() == b"x" * 10


async def test_what_is_not_finished_or_not_wanted_is_removed(tmp_path: Path) -> None:
    unfinished = Sink(tmp_path / "f", 10_000_000)
    await unfinished.write(bytes(BUFFER_SIZE))
    assert (tmp_path / "f").exists()
    unfinished.close(keep=True)
    assert not (tmp_path / "f").exists()
    unwanted = Sink(tmp_path / "f", 10)
    await unwanted.write(b"x")
    await unwanted.finish()
    unwanted.close(keep=False)
    assert not (tmp_path / "f").exists()


async def test_a_file_that_cannot_be_closed_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems report a full disk only on close."""

    class Full:
        def write(self, data: memoryview) -> int:
            return len(data)

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("picwish_watchd.picwish.sink._create_file", lambda path: Full())
    sink = Sink(tmp_path / "f", 10)
    await sink.write(b"x")
    with pytest.raises(SinkError, match="No space left"):
        await sink.finish()
    sink.close(keep=True)


async def test_nothing_that_stood_there_before_is_touched_until_something_comes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"older")
    Sink(tmp_path / "f", 10).close(keep=False)
    assert (tmp_path / "f").read_bytes() == b"older"


async def test_a_cancelled_write_ends_when_its_thread_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow disk the file may not be closed while a thread writes to it."""
    writing, go_on = threading.Event(), threading.Event()

    class Slow:
        closed = False

        def write(self, data: memoryview) -> int:
            writing.set()
            go_on.wait(5)
            assert not self.closed
            raise OSError("and then it fails")

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr("picwish_watchd.picwish.sink._create_file", lambda path: Slow())
    sink = Sink(tmp_path / "f", 10_000_000)
    work = asyncio.ensure_future(sink.write(bytes(BUFFER_SIZE)))
    await asyncio.to_thread(writing.wait, 5)
    work.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not work.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    sink.close(keep=False)
