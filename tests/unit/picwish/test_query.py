"""Querying a task: it is free, so whatever is unclear is queried again."""

import asyncio
import base64
import gzip
import json
import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.picwish import (
    Healthy,
    NotStored,
    PicwishClient,
    Processing,
    RateLimited,
    RequestTimeouts,
    Succeeded,
    TaskFailed,
    TaskNotFound,
    Unauthorized,
    Unavailable,
)
from tests.support.picwish_client import KEY, SHORT_TIMEOUTS, TASK_ID, create_task, make_client, task_envelope
from tests.support.raw_server import (
    RawConnection,
    RawServer,
    http_response,
    ignore_client,
    read_without_reply,
    reply_with,
)

PICTURE = os.urandom(300_000)


async def query_with_reply(tmp_path: Path, reply: bytes, **options: Any) -> object:
    async with RawServer(reply_with(reply)) as server, make_client(server.url, **options) as picwish:
        return await picwish.query(TASK_ID, sink=tmp_path / "sink")


async def test_queries_share_a_connection_and_carry_the_key(tmp_path: Path) -> None:
    twice = reply_with(http_response(task_envelope(4)), http_response(task_envelope(4)))
    async with RawServer(twice) as server, make_client(server.url) as picwish:
        for _ in range(2):
            assert isinstance(await picwish.query(TASK_ID, sink=tmp_path / "sink"), Processing)
    assert len(server.connections) == 1
    assert server.received.startswith(f"GET /api/tasks/visual/scale-pro/{TASK_ID} HTTP/1.1\r\n".encode())
    assert server.received.count(f"X-API-KEY: {KEY}\r\n".encode()) == 2


async def test_a_new_key_is_used_from_the_next_request_on(tmp_path: Path) -> None:
    twice = reply_with(http_response(task_envelope(4)), http_response(task_envelope(4)))
    async with RawServer(twice) as server, make_client(server.url) as picwish:
        await picwish.query(TASK_ID, sink=tmp_path / "sink")
        picwish.replace_key("another-key")
        await picwish.query(TASK_ID, sink=tmp_path / "sink")
    assert server.received.count(b"X-API-KEY: another-key\r\n") == 1


@pytest.mark.parametrize(
    ("task_id", "path"),
    [
        ("../../other?x=1#y", b"/scale-pro/..%2F..%2Fother%3Fx%3D1%23y "),
        ("..", b"/scale-pro/%2E%2E "),
        ("a b\r\nX: y", b"/scale-pro/a%20b%0D%0AX%3A%20y "),
        ("任务", b"/scale-pro/%E4%BB%BB%E5%8A%A1 "),
        ("%2e", b"/scale-pro/%252e "),
    ],
)
async def test_a_hostile_task_id_stays_one_step_of_the_path(tmp_path: Path, task_id: str, path: bytes) -> None:
    async with RawServer(reply_with(http_response(code=404))) as server, make_client(server.url) as picwish:
        await picwish.query(task_id, sink=tmp_path / "sink")
    assert path in server.received.partition(b"\r\n")[0]


@pytest.mark.parametrize("state", [0, 2, 3, 4, 99, "4", 4.0])
async def test_zero_and_everything_above_one_is_processing(tmp_path: Path, state: object) -> None:
    outcome = await query_with_reply(tmp_path, http_response(task_envelope(progress="50", state=state)))
    assert isinstance(outcome, Processing)
    assert outcome.task_info.progress == 50


async def test_success_gives_the_address(tmp_path: Path) -> None:
    outcome = await query_with_reply(
        tmp_path, http_response(task_envelope(image="https://cdn.example/r.png?Expires=1&Signature=s3cret"))
    )
    assert isinstance(outcome, Succeeded)
    assert outcome.image_url == "https://cdn.example/r.png?Expires=1&Signature=s3cret"
    assert "s3cret" not in repr(outcome)
    assert "s3cret" not in outcome.task_info.to_json()


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:image/png;charset=utf-8;BASE64, "])
async def test_a_base64_result_is_in_the_sink(tmp_path: Path, prefix: str) -> None:
    outcome = await query_with_reply(
        tmp_path, http_response(task_envelope(image=prefix + base64.b64encode(PICTURE).decode()))
    )
    assert isinstance(outcome, Succeeded)
    assert (outcome.image_url, outcome.spooled_bytes) == (None, len(PICTURE))
    assert (tmp_path / "sink").read_bytes() == PICTURE


async def test_a_compressed_base64_result_is_in_the_sink(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(task_envelope(image=base64.b64encode(PICTURE).decode())).encode())
    outcome = await query_with_reply(tmp_path, http_response(packed, headers={"Content-Encoding": "gzip"}))
    assert isinstance(outcome, Succeeded)
    assert (tmp_path / "sink").read_bytes() == PICTURE


@pytest.mark.parametrize(
    "image", [None, "", 7, "%%%", "oss://bucket/x.jpg", "A" * 4001, "!" + "A" * 200_000, "data:image/png,raw"]
)
async def test_a_success_without_a_usable_image_has_a_reason(tmp_path: Path, image: object) -> None:
    outcome = await query_with_reply(tmp_path, http_response(task_envelope(image=image)))
    assert isinstance(outcome, Succeeded)
    assert (outcome.image_url, outcome.spooled_bytes) == (None, None)
    assert outcome.image_defect
    assert not (tmp_path / "sink").exists()


async def test_base64_that_is_damaged_late_leaves_no_file(tmp_path: Path) -> None:
    text = base64.b64encode(PICTURE * 4).decode()
    outcome = await query_with_reply(tmp_path, http_response(task_envelope(image=text[:-9] + "!" + text[-8:])))
    assert isinstance(outcome, Succeeded)
    assert outcome.spooled_bytes is None
    assert not (tmp_path / "sink").exists()


async def test_truncated_base64_is_queried_again(tmp_path: Path) -> None:
    reply = http_response(task_envelope(image=base64.b64encode(PICTURE * 4).decode()))
    assert isinstance(await query_with_reply(tmp_path, reply[:-1000]), Unavailable)
    assert not (tmp_path / "sink").exists()


async def test_an_image_beyond_the_size_limit_is_not_taken(tmp_path: Path) -> None:
    outcome = await query_with_reply(
        tmp_path, http_response(task_envelope(image=base64.b64encode(PICTURE).decode())), max_result=1000
    )
    assert isinstance(outcome, Succeeded)
    assert outcome.spooled_bytes is None
    assert not (tmp_path / "sink").exists()


async def test_a_picture_of_a_task_that_is_not_done_is_not_kept(tmp_path: Path) -> None:
    outcome = await query_with_reply(
        tmp_path, http_response(task_envelope(4, image=base64.b64encode(PICTURE).decode()))
    )
    assert isinstance(outcome, Processing)
    assert not (tmp_path / "sink").exists()


async def test_a_result_that_cannot_be_stored_is_not_the_fault_of_the_api(tmp_path: Path) -> None:
    for size in (100, 900_000):
        reply = http_response(task_envelope(image=base64.b64encode(bytes(size)).decode()))
        outcome = await query_with_reply(tmp_path / "missing", reply)
        assert isinstance(outcome, NotStored)
        assert "No such file" in outcome.reason


async def test_a_large_base64_result_needs_little_memory(tmp_path: Path) -> None:
    picture = os.urandom(3_000_000) * 4
    text = base64.b64encode(picture)

    async def serve(connection: RawConnection) -> None:
        await connection.read_request()
        head = b'{"status": 200, "data": {"task_id": "%b", "state": 1, "image": "' % TASK_ID.encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(head) + len(text) + 3))
        await connection.send(head)
        view = memoryview(text)
        for at in range(0, len(text), 65536):
            await connection.send(bytes(view[at : at + 65536]))
        await connection.send(b'"}}')

    async with RawServer(serve) as server, make_client(server.url, timeout=5.0) as picwish:
        tracemalloc.start()
        outcome = await picwish.query(TASK_ID, sink=tmp_path / "sink")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(outcome, Succeeded)
    assert outcome.spooled_bytes == len(picture)
    assert (tmp_path / "sink").read_bytes() == picture
    assert peak < 4_000_000


@pytest.mark.parametrize(("state", "again"), [(-1, True), (-9, True), (-10, False), (-99, True), ("-5", False)])
async def test_a_failed_task_says_whether_another_try_may_help(tmp_path: Path, state: object, again: bool) -> None:
    outcome = await query_with_reply(tmp_path, http_response(task_envelope(state=state)))
    assert isinstance(outcome, TaskFailed)
    assert outcome.is_retryable is again
    assert outcome.task_id == TASK_ID


@pytest.mark.parametrize(
    ("code", "kind"),
    [(code, Unauthorized) for code in (401, 402, 403)]
    + [(code, TaskNotFound) for code in (404, 410)]
    + [(429, RateLimited)]
    + [(code, Unavailable) for code in (302, 400, 413, 500, 502, 503, 504)],
)
async def test_each_code_has_its_meaning_with_and_without_json(tmp_path: Path, code: int, kind: type) -> None:
    headers = {"Retry-After": "3", "Location": "http://127.0.0.1:1/"}
    body: dict[str, object] = {"status": code, "message": "oops"}
    assert isinstance(await query_with_reply(tmp_path, http_response("oops", code=code, headers=headers)), kind)
    assert isinstance(await query_with_reply(tmp_path, http_response(body, code=code)), kind)
    assert isinstance(await query_with_reply(tmp_path, http_response(body)), kind)


@pytest.mark.parametrize("code", [429, 503, 500])
async def test_the_requested_pause_is_returned(tmp_path: Path, code: int) -> None:
    outcome = await query_with_reply(tmp_path, http_response(code=code, headers={"Retry-After": "3"}))
    assert isinstance(outcome, RateLimited | Unavailable)
    assert outcome.retry_after == 3.0


@pytest.mark.parametrize(
    "body",
    ["<html>all is well</html>", "", "[1]", "nothing", '{"status": 200}', '{"data": {"state": null}}', '{"data": [}'],
)
async def test_a_response_without_the_task_is_queried_again(tmp_path: Path, body: str) -> None:
    assert isinstance(await query_with_reply(tmp_path, http_response(body)), Unavailable)


async def test_a_response_about_another_task_is_ignored(tmp_path: Path) -> None:
    body: dict[str, object] = {"status": 200, "data": {"task_id": "other", "state": 1, "image": "https://x.example/"}}
    assert isinstance(await query_with_reply(tmp_path, http_response(body)), Unavailable)


async def test_every_broken_connection_is_queried_again(tmp_path: Path) -> None:
    async def reset(connection: RawConnection) -> None:
        connection.reset()

    async def cut(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(http_response(task_envelope())[:-5])

    async def nonsense(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"\x16\x03\x01 not HTTP\r\n\r\n")

    for handler in (reset, cut, nonsense, read_without_reply, ignore_client):
        async with RawServer(handler) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
            assert isinstance(await picwish.query(TASK_ID, sink=tmp_path / "sink"), Unavailable)
    async with make_client(server.url, **SHORT_TIMEOUTS) as picwish:
        assert isinstance(await picwish.query(TASK_ID, sink=tmp_path / "sink"), Unavailable)


async def test_an_answer_that_is_whole_counts_though_the_connection_breaks_behind_it(tmp_path: Path) -> None:
    text = json.dumps(task_envelope(4)).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text) + 100, text)
    assert isinstance(await query_with_reply(tmp_path, reply), Processing)


async def test_a_drip_fed_answer_is_bounded_by_a_deadline(tmp_path: Path) -> None:
    async def drip(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
        while True:
            await connection.send(b" ")
            await asyncio.sleep(0.02)

    async with (
        RawServer(drip) as server,
        make_client(server.url, request_timeouts=RequestTimeouts(query=0.3)) as picwish,
    ):
        async with asyncio.timeout(5):
            assert isinstance(await picwish.query(TASK_ID, sink=tmp_path / "sink"), Unavailable)


async def test_a_picture_has_the_time_of_a_transfer(tmp_path: Path) -> None:
    async def slow_picture(connection: RawConnection) -> None:
        await connection.read_request()
        text = json.dumps(task_envelope(image=base64.b64encode(bytes(9000)).decode())).encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text))
        await connection.send(text[:2000])
        await asyncio.sleep(0.3)
        await connection.send(text[2000:])

    async with RawServer(slow_picture) as server:
        async with make_client(server.url, timeout=5.0, request_timeouts=RequestTimeouts(query=0.2)) as picwish:
            assert isinstance(await picwish.query(TASK_ID, sink=tmp_path / "sink"), Succeeded)
        async with make_client(
            server.url, timeout=5.0, request_timeouts=RequestTimeouts(query=0.2, transfer=0.1)
        ) as picwish:
            assert isinstance(await picwish.query(TASK_ID, sink=tmp_path / "other"), Unavailable)
    assert not (tmp_path / "other").exists()


async def test_cancelling_a_query_leaves_no_file(tmp_path: Path) -> None:
    async def half(connection: RawConnection) -> None:
        await connection.read_request()
        reply = http_response(task_envelope(image=base64.b64encode(bytes(900_000)).decode()))
        await connection.send(reply[:-100])
        await asyncio.Event().wait()

    async with RawServer(half) as server, make_client(server.url, timeout=60.0) as picwish:
        work = asyncio.ensure_future(picwish.query(TASK_ID, sink=tmp_path / "sink"))
        while not (tmp_path / "sink").exists():
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not (tmp_path / "sink").exists()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (http_response({"status": 404, "message": "not found"}, code=404), Healthy),
        (http_response({"status": 404, "message": "not found"}), Healthy),
        (http_response(code=404), Healthy),
        (http_response(code=400), Healthy),
        (http_response({"status": 200, "data": {}}), Healthy),
        (http_response(code=401), Unauthorized),
        (http_response({"status": 401}), Unauthorized),
        (http_response(code=403), Unauthorized),
        (http_response(code=429), RateLimited),
        (http_response(code=500), Unavailable),
        (http_response(code=302), Unavailable),
        (http_response("<html>Log in to the hotel's network</html>"), Unavailable),
    ],
)
async def test_a_probe_reports_whether_api_and_key_work(reply: bytes, kind: type) -> None:
    async with RawServer(reply_with(reply)) as server, make_client(server.url) as picwish:
        assert isinstance(await picwish.probe(), kind)


async def test_a_probe_of_a_dead_api_is_unavailable_and_writes_nothing(tmp_path: Path) -> None:
    picture = http_response(task_envelope(image=base64.b64encode(bytes(900_000)).decode()))
    async with RawServer(reply_with(picture)) as server, make_client(server.url) as picwish:
        assert isinstance(await picwish.probe(), Healthy)
    async with make_client(server.url) as picwish:
        assert isinstance(await picwish.probe(), Unavailable)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "base_url",
    [
        "http://techhk.aoscdn.com",
        "ftp://127.0.0.1",
        "techhk.aoscdn.com",
        "https://",
        "https://x.example:99999",
        "http://☃.example",
        "http://127.1.evil.example",
    ],
)
def test_an_address_that_is_not_fit_for_a_key_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError):
        make_client(base_url)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8", "https://x.example"])
def test_https_and_loopback_are_fit_for_a_key(base_url: str) -> None:
    assert base_url in repr(make_client(base_url))


async def test_http_is_taken_for_any_host_if_the_user_insists() -> None:
    async with make_client("http://picwish.invalid", allow_insecure=True) as picwish:
        assert isinstance(await picwish.probe(), Unavailable)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_is_no_valid_header_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(ValueError) as refused:
        PicwishClient(base_url="https://x.example", key=key, timeout=1.0)
    assert not key or key not in str(refused.value)
    with pytest.raises(ValueError):
        make_client("https://x.example").replace_key(key)


async def test_the_key_and_signatures_are_in_no_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    signed = http_response(
        task_envelope(image="https://x.example/r?Signature=s3cret"), headers={"Location": "/?Signature=s3cret"}
    )
    async with RawServer(reply_with(signed)) as server, make_client(server.url) as picwish:
        await picwish.query(TASK_ID, sink=tmp_path / "sink")
        await create_task(picwish, tmp_path)
        await picwish.download(server.url + "/r?Signature=s3cret", sink=tmp_path / "sink")
        assert KEY not in repr(picwish)
    assert KEY not in caplog.text
    assert "s3cret" not in caplog.text
