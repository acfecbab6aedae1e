"""Downloading a result: what is gone, what is no image, and what is worth another try."""

import asyncio
import gzip
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.picwish import DeadUrl, Downloaded, InvalidResult, NotStored, RequestTimeouts, Unavailable
from tests.support.picwish_client import KEY, SHORT_TIMEOUTS, make_client
from tests.support.raw_server import (
    RawConnection,
    RawServer,
    http_response,
    ignore_client,
    read_without_reply,
    reply_with,
)

PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(700_000)
SIGNED = "/out/a%20b.png?Expires=17&Signature=a%2Fb%2Bc%3D&x=a+b"


async def download_with_reply(tmp_path: Path, reply: bytes, **options: Any) -> object:
    async with RawServer(reply_with(reply)) as server, make_client(server.url, **options) as picwish:
        return await picwish.download(server.url + SIGNED, sink=tmp_path / "sink")


async def test_a_result_is_in_a_new_file_and_the_key_is_never_sent(tmp_path: Path) -> None:
    (tmp_path / "sink").write_bytes(b"older" * 1_000_000)
    (tmp_path / "sink").chmod(0o666)
    async with RawServer(reply_with(http_response(PICTURE))) as server, make_client(server.url) as picwish:
        outcome = await picwish.download(server.url + SIGNED, sink=tmp_path / "sink")
    assert outcome == Downloaded(len(PICTURE))
    assert (tmp_path / "sink").read_bytes() == PICTURE
    assert (tmp_path / "sink").stat().st_mode & 0o7777 == 0o600
    assert KEY.encode() not in server.received
    assert b"x-api-key" not in server.received.lower()


async def test_the_signed_url_is_requested_unchanged(tmp_path: Path) -> None:
    async with RawServer(reply_with(http_response(PICTURE))) as server, make_client(server.url) as picwish:
        await picwish.download(server.url + SIGNED, sink=tmp_path / "sink")
    assert server.received.startswith(f"GET {SIGNED} HTTP/1.1\r\n".encode())


async def test_a_chunked_and_a_compressed_result_are_taken(tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (
        len(PICTURE),
        PICTURE,
    )
    assert isinstance(await download_with_reply(tmp_path, chunked), Downloaded)
    packed = http_response(gzip.compress(PICTURE, 1), headers={"Content-Encoding": "gzip"})
    assert isinstance(await download_with_reply(tmp_path, packed), Downloaded)
    assert (tmp_path / "sink").read_bytes() == PICTURE


async def test_a_link_at_the_sinks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"keep")
    (tmp_path / "sink").symlink_to(tmp_path / "precious")
    assert isinstance(await download_with_reply(tmp_path, http_response(PICTURE)), Downloaded)
    assert (tmp_path / "precious").read_bytes() == b"keep"


async def test_up_to_three_redirects_are_followed_without_the_key(tmp_path: Path) -> None:
    async with RawServer(reply_with(http_response(PICTURE))) as last:
        hops = [http_response(code=c, headers={"Location": f"/hop{c}"}) for c in (301, 307)]
        hops.append(http_response(code=302, headers={"Location": last.url + "/end"}))
        async with RawServer(*(reply_with(h) for h in hops)) as first, make_client(first.url) as picwish:
            assert isinstance(await picwish.download(first.url, sink=tmp_path / "sink"), Downloaded)
    assert len(first.connections) == 3
    assert KEY.encode() not in first.received + last.received


async def test_endless_redirects_are_dead(tmp_path: Path) -> None:
    again = reply_with(http_response(code=302, headers={"Location": "/again"}))
    async with RawServer(again) as server, make_client(server.url) as picwish:
        assert isinstance(await picwish.download(server.url, sink=tmp_path / "sink"), DeadUrl)
    assert len(server.connections) == 4


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://☃.example", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/"]
)
async def test_a_redirect_to_no_web_address_is_dead(tmp_path: Path, location: str) -> None:
    assert isinstance(
        await download_with_reply(tmp_path, http_response(code=302, headers={"Location": location})), DeadUrl
    )


@pytest.mark.parametrize(
    "url", ["", "nothing", "file:///etc/passwd", "http://", "http://☃.example", "http://127.0.0.1:99999/"]
)
async def test_what_is_no_web_address_is_dead(tmp_path: Path, url: str) -> None:
    async with make_client("http://127.0.0.1:1") as picwish:
        assert isinstance(await picwish.download(url, sink=tmp_path / "sink"), DeadUrl)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 451])
async def test_a_definite_4xx_is_dead(tmp_path: Path, code: int) -> None:
    assert isinstance(await download_with_reply(tmp_path, http_response("<Error>Expired</Error>", code=code)), DeadUrl)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 204, 206, 302])
async def test_every_other_error_is_retried_after_the_requested_pause(tmp_path: Path, code: int) -> None:
    outcome = await download_with_reply(tmp_path, http_response(code=code, headers={"Retry-After": "9"}))
    assert outcome == Unavailable(outcome.reason, 9.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "image/png"),
        (b"<!DOCTYPE html><html>", "image/png"),
        (b"\xef\xbb\xbf \n<?xml version='1.0'?>", "application/octet-stream"),
        (b'{"status": 500}', "image/jpeg"),
        (b"Access denied", "text/plain; charset=utf-8"),
        (b"\n\n\n", "image/png"),
    ],
)
async def test_a_text_or_nothing_is_not_a_result(tmp_path: Path, body: bytes, content_type: str) -> None:
    assert isinstance(
        await download_with_reply(tmp_path, http_response(body, headers={"Content-Type": content_type})), InvalidResult
    )
    assert not (tmp_path / "sink").exists()


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "", "application/octet-stream"])
async def test_an_image_is_recognized_by_its_bytes_with_any_content_type(tmp_path: Path, content_type: str) -> None:
    reply = http_response(PICTURE, headers={"Content-Type": content_type})
    assert isinstance(await download_with_reply(tmp_path, reply), Downloaded)


async def test_a_result_that_is_cut_short_is_tried_again_and_leaves_no_file(tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b" % (len(PICTURE), PICTURE[:-5])
    for reply in (http_response(PICTURE)[:-1], chunked):
        assert isinstance(await download_with_reply(tmp_path, reply), Unavailable)
        assert not (tmp_path / "sink").exists()


async def test_every_end_of_the_connection_is_tried_again(tmp_path: Path) -> None:
    async def reset(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(http_response(PICTURE)[:100_000])
        connection.reset()

    for handler in (reset, read_without_reply, ignore_client):
        async with RawServer(handler) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
            assert isinstance(await picwish.download(server.url, sink=tmp_path / "sink"), Unavailable)
            assert not (tmp_path / "sink").exists()
    async with make_client(server.url, **SHORT_TIMEOUTS) as picwish:
        assert isinstance(await picwish.download(server.url, sink=tmp_path / "sink"), Unavailable)


async def test_an_endless_result_is_bounded_in_size_and_time(tmp_path: Path) -> None:
    async def flood(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n\x89PNG")
        while True:
            await connection.send(bytes(65536))

    async def drip(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n\x89PNG")
        while True:
            await connection.send(b"x")
            await asyncio.sleep(0.02)

    async with RawServer(flood) as server, make_client(server.url, max_result=5_000_000) as picwish:
        assert isinstance(await picwish.download(server.url, sink=tmp_path / "sink"), InvalidResult)
    async with (
        RawServer(drip) as server,
        make_client(server.url, request_timeouts=RequestTimeouts(transfer=0.3)) as picwish,
    ):
        assert isinstance(await picwish.download(server.url, sink=tmp_path / "sink"), Unavailable)
    assert not (tmp_path / "sink").exists()


async def test_a_large_result_needs_little_memory(tmp_path: Path) -> None:
    async def serve(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        block = b"\xff\xd8\xff\xe0" * 12_500
        for _ in range(400):
            await connection.send(block)

    async with RawServer(serve) as server, make_client(server.url, timeout=5.0) as picwish:
        tracemalloc.start()
        outcome = await picwish.download(server.url, sink=tmp_path / "sink")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcome == Downloaded(20_000_000)
    assert peak < 3_000_000


async def test_a_result_that_cannot_be_stored_is_this_machines_fault(tmp_path: Path) -> None:
    for body in (PICTURE, PICTURE[:1000]):
        outcome = await download_with_reply(tmp_path / "missing", http_response(body))
        assert isinstance(outcome, NotStored)
        assert "No such file" in outcome.reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picwish_watchd.picwish.sink._create_file", lambda path: io.FileIO("/dev/full", "w"))
    outcome = await download_with_reply(tmp_path, http_response(PICTURE))
    assert isinstance(outcome, NotStored)
    assert "No space left" in outcome.reason


async def test_cancelling_a_download_leaves_no_file(tmp_path: Path) -> None:
    async def half(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(http_response(PICTURE)[:-1])
        await asyncio.Event().wait()

    async with RawServer(half) as server, make_client(server.url, timeout=60.0) as picwish:
        work = asyncio.ensure_future(picwish.download(server.url, sink=tmp_path / "sink"))
        while not (tmp_path / "sink").exists():
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not (tmp_path / "sink").exists()
