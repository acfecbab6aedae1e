"""The paid POST, and what each of its outcomes means for the credits."""

import asyncio
import base64
import gzip
import json
import os
import ssl
import weakref
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.job import ErrorCode
from picwish_watchd.picwish import (
    Accepted,
    CreateRequest,
    Finished,
    InDoubt,
    NotAccepted,
    NotSent,
    Refused,
    RequestTimeouts,
    TaskFailed,
    Unauthorized,
)
from tests.support.picwish_client import (
    KEY,
    SHORT_TIMEOUTS,
    TASK_ID,
    CreateHooks,
    create_task,
    make_client,
    task_envelope,
)
from tests.support.raw_server import (
    RawConnection,
    RawServer,
    http_response,
    ignore_client,
    read_without_reply,
    reply_with,
)

ACCEPTED_ANSWER: dict[str, object] = {"status": 200, "message": "success", "data": {"task_id": TASK_ID}}
PICTURE = os.urandom(300_000)


async def create_with_reply(tmp_path: Path, reply: bytes, **request: Any) -> object:
    async with RawServer(reply_with(reply)) as server, make_client(server.url) as picwish:
        return await create_task(picwish, tmp_path, **request)


async def test_a_task_id_is_accepted_and_the_form_is_what_the_document_asks(tmp_path: Path) -> None:
    async with RawServer(reply_with(http_response(ACCEPTED_ANSWER))) as server, make_client(server.url) as picwish:
        outcome = await create_task(picwish, tmp_path, image=b"\xff\xd8picture", type=1, return_type=2, sync=0)
    assert isinstance(outcome, Accepted)
    assert outcome.task_id == TASK_ID
    head, _, body = server.received.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/tasks/visual/scale-pro HTTP/1.1\r\n")
    assert f"X-API-KEY: {KEY}".encode() in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"transfer-encoding" not in head.lower()
    for name, value in [(b"type", b"1"), (b"return_type", b"2"), (b"sync", b"0")]:
        assert b'form-data; name="%b"\r\n\r\n%b\r\n' % (name, value) in body
    assert b'name="image_file"; filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8picture\r\n--' in body
    assert b"image_url" not in body


async def test_a_link_is_sent_as_a_field(tmp_path: Path) -> None:
    async with RawServer(reply_with(http_response(ACCEPTED_ANSWER))) as server, make_client(server.url) as picwish:
        await create_task(picwish, tmp_path, image=None, image_url="https://example.com/a%20b.jpg")
    assert b'name="image_url"\r\n\r\nhttps://example.com/a%20b.jpg\r\n--' in server.received
    assert b"image_file" not in server.received


async def test_every_post_has_a_connection_of_its_own(tmp_path: Path) -> None:
    one = reply_with(http_response(ACCEPTED_ANSWER), http_response(ACCEPTED_ANSWER))
    async with RawServer(one) as server, make_client(server.url) as picwish:
        await picwish.query(TASK_ID, sink=tmp_path / "q")
        for _ in range(3):
            await create_task(picwish, tmp_path)
    assert len(server.connections) == 4


async def test_the_hook_comes_after_the_connection_and_before_the_first_byte(tmp_path: Path) -> None:
    witness = CreateHooks()
    async with RawServer(reply_with(http_response(ACCEPTED_ANSWER))) as server, make_client(server.url) as picwish:
        witness.on_started = lambda: witness.calls.append(f"{len(server.received)} bytes")
        await create_task(picwish, tmp_path, witness=witness)
    assert witness.calls == ["started", "0 bytes", "sent"]


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError("disk"), TimeoutError("slow"), asyncio.CancelledError()])
async def test_what_the_hook_raises_comes_out_unchanged_and_nothing_is_sent(
    tmp_path: Path, error: BaseException
) -> None:
    witness = CreateHooks(error)
    async with RawServer(read_without_reply) as server, make_client(server.url) as picwish:
        with pytest.raises(type(error)) as raised:
            await create_task(picwish, tmp_path, witness=witness)
        await asyncio.sleep(0)
        assert server.received == b""
    assert raised.value is error
    assert witness.calls == ["started"]


async def test_the_deadline_never_interrupts_the_hook(tmp_path: Path) -> None:
    calls = []

    async def slow() -> None:
        await asyncio.sleep(0.1)
        calls.append("whole")

    async with (
        RawServer(reply_with(http_response(ACCEPTED_ANSWER))) as server,
        make_client(server.url, post_deadline=0.05) as picwish,
    ):
        request = CreateRequest(image=b"x")
        outcome = await picwish.create(request, sink=tmp_path / "sink", on_send_start=slow, on_body_sent=lambda: None)
    assert calls == ["whole"]
    assert isinstance(outcome, Accepted)


async def test_a_connection_that_the_server_closed_while_waiting_is_not_used(tmp_path: Path) -> None:
    witness, closed = CreateHooks(), asyncio.Event()

    async def tired(connection: RawConnection) -> None:
        connection.end_output()
        closed.set()
        await connection.drain_input()

    async def turn() -> None:
        await asyncio.wait_for(closed.wait(), 10)
        # Wait until the end of the connection reaches the client.
        await asyncio.sleep(0.05)

    witness.ready = turn
    async with (
        RawServer(tired, tired, tired, reply_with(http_response(ACCEPTED_ANSWER))) as server,
        make_client(server.url) as picwish,
    ):
        assert isinstance(await create_task(picwish, tmp_path, witness=witness), NotSent)
        assert (len(server.connections), witness.calls, server.received) == (2, [], b"")
        assert isinstance(await create_task(picwish, tmp_path, witness=witness), Accepted)
        assert (len(server.connections), witness.calls) == (4, ["started", "sent"])


async def test_an_error_before_the_permit_is_passed_on_and_nothing_is_sent(tmp_path: Path) -> None:
    witness = CreateHooks()

    async def never() -> None:
        raise TimeoutError("slow")

    witness.ready = never
    async with RawServer(read_without_reply) as server, make_client(server.url) as picwish:
        with pytest.raises(TimeoutError, match="slow"):
            await create_task(picwish, tmp_path, witness=witness)
        assert server.received == b""
    assert witness.calls == []


async def test_a_closed_port_means_that_nothing_was_sent(tmp_path: Path) -> None:
    witness = CreateHooks()
    async with RawServer(ignore_client) as server:
        url = server.url
    async with make_client(url) as picwish:
        outcome = await create_task(picwish, tmp_path, witness=witness)
    assert isinstance(outcome, NotSent)
    assert witness.calls == []


async def test_an_unknown_host_means_that_nothing_was_sent(tmp_path: Path) -> None:
    async with make_client("https://picwish.invalid") as picwish:
        assert isinstance(await create_task(picwish, tmp_path), NotSent)


async def test_an_unknown_host_name_means_that_nothing_was_sent(tmp_path: Path) -> None:
    async with make_client("https://" + "a" * 64 + ".com") as picwish:
        assert isinstance(await create_task(picwish, tmp_path), NotSent)


@pytest.fixture
def tls_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trust_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client trust the test certificate."""
    context = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("picwish_watchd.picwish.transport.create_tls_context", lambda: context)


async def test_a_self_signed_certificate_means_that_nothing_was_sent(
    tmp_path: Path, tls_server: ssl.SSLContext
) -> None:
    witness = CreateHooks()
    async with RawServer(read_without_reply, tls=tls_server) as server, make_client(server.url) as picwish:
        outcome = await create_task(picwish, tmp_path, witness=witness)
        assert server.received == b""
    assert isinstance(outcome, NotSent)
    assert "certificate" in outcome.reason
    assert witness.calls == []


@pytest.mark.usefixtures("trust_certificate")
async def test_over_tls_what_the_server_sends_first_is_not_taken_for_its_end(
    tmp_path: Path, tls_server: ssl.SSLContext
) -> None:
    witness = CreateHooks()

    async def turn() -> None:
        # TLS 1.3 sends tickets after the handshake, which nobody has read yet.
        await asyncio.sleep(0.05)

    witness.ready = turn
    async with (
        RawServer(reply_with(http_response(ACCEPTED_ANSWER)), tls=tls_server) as server,
        make_client(server.url) as picwish,
    ):
        assert isinstance(await create_task(picwish, tmp_path, witness=witness), Accepted)


@pytest.mark.usefixtures("trust_certificate")
async def test_over_tls_the_hook_comes_after_the_handshake(tmp_path: Path, tls_server: ssl.SSLContext) -> None:
    witness = CreateHooks()
    async with (
        RawServer(reply_with(http_response(ACCEPTED_ANSWER)), tls=tls_server) as server,
        make_client(server.url) as picwish,
    ):
        witness.on_started = lambda: witness.calls.append(f"{len(server.received)} bytes")
        assert isinstance(await create_task(picwish, tmp_path, witness=witness, size=1_000_000), Accepted)
    assert witness.calls == ["started", "0 bytes", "sent"]


@pytest.mark.usefixtures("trust_certificate")
async def test_an_encrypted_connection_that_is_damaged_after_upload_is_in_doubt(
    tmp_path: Path, tls_server: ssl.SSLContext
) -> None:
    async def damaged(connection: RawConnection) -> None:
        await connection.read_request()
        connection.send_below_tls(b"\x17\x03\x03\x00\x20" + bytes(32))
        await connection.drain_input()

    async with RawServer(damaged, tls=tls_server) as server, make_client(server.url) as picwish:
        outcome = await create_task(picwish, tmp_path)
    assert isinstance(outcome, InDoubt)
    assert "encrypted" in outcome.reason


async def test_a_tls_handshake_that_stalls_means_that_nothing_was_sent(tmp_path: Path) -> None:
    async with RawServer(ignore_client) as server:
        options = {"request_timeouts": RequestTimeouts(connect=0.2), "allow_insecure": False}
        async with make_client(server.url.replace("http:", "https:"), **options) as picwish:
            assert isinstance(await create_task(picwish, tmp_path), NotSent)


async def test_a_read_timeout_after_upload_is_in_doubt(tmp_path: Path) -> None:
    async with RawServer(read_without_reply) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
        outcome = await create_task(picwish, tmp_path)
    assert isinstance(outcome, InDoubt)


async def test_a_connection_that_breaks_after_upload_is_in_doubt(tmp_path: Path) -> None:
    async def reset(connection: RawConnection) -> None:
        await connection.read_request()
        connection.reset()

    async def finish(connection: RawConnection) -> None:
        await connection.read_request()

    for handler in (reset, finish):
        async with RawServer(handler) as server, make_client(server.url) as picwish:
            assert isinstance(await create_task(picwish, tmp_path), InDoubt)


async def test_a_reset_while_uploading_is_not_accepted(tmp_path: Path) -> None:
    async def reset(connection: RawConnection) -> None:
        await connection.read(100_000)
        connection.reset()

    witness = CreateHooks()
    async with RawServer(reset) as server, make_client(server.url) as picwish:
        outcome = await create_task(picwish, tmp_path, witness=witness, size=30_000_000)
    assert isinstance(outcome, NotAccepted)
    assert not outcome.rate_limited
    assert witness.calls == ["started"]


async def test_a_server_that_never_reads_a_large_body_has_not_accepted(tmp_path: Path) -> None:
    async with RawServer(ignore_client) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
        assert isinstance(await create_task(picwish, tmp_path, size=30_000_000), NotAccepted)


async def test_a_server_that_never_reads_a_small_body_leaves_doubt(tmp_path: Path) -> None:
    async with RawServer(ignore_client) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
        assert isinstance(await create_task(picwish, tmp_path, size=1000), InDoubt)


async def test_the_deadline_while_uploading_is_not_accepted(tmp_path: Path) -> None:
    async def slowly(connection: RawConnection) -> None:
        while True:
            await connection.read(65536)
            await asyncio.sleep(0.05)

    async with RawServer(slowly) as server, make_client(server.url, timeout=5.0, post_deadline=0.5) as picwish:
        outcome = await create_task(picwish, tmp_path, size=30_000_000)
    assert isinstance(outcome, NotAccepted)
    assert "allowed in all" in outcome.reason


async def test_a_failure_at_the_last_piece_leaves_doubt(tmp_path: Path) -> None:
    """The closing boundary was handed over, so it may have arrived."""

    class Fails:
        async def started(self) -> None: ...

        def sent(self) -> None:
            raise OSError("as if the last write had failed")

    async with RawServer(read_without_reply) as server, make_client(server.url) as picwish:
        fails = Fails()
        request = CreateRequest(image=b"x")
        outcome = await picwish.create(
            request, sink=tmp_path / "s", on_send_start=fails.started, on_body_sent=fails.sent
        )
    assert isinstance(outcome, InDoubt)


@pytest.mark.parametrize(("code", "kind"), [(413, Refused), (429, NotAccepted), (401, Unauthorized), (500, InDoubt)])
async def test_an_early_answer_while_uploading_is_heard(tmp_path: Path, code: int, kind: type) -> None:
    async def early(connection: RawConnection) -> None:
        await connection.read_head()
        await connection.send(http_response({"status": code, "message": "early"}, code=code))
        await connection.drain_input()

    async with RawServer(early) as server, make_client(server.url) as picwish:
        outcome = await create_task(picwish, tmp_path, size=30_000_000)
    assert isinstance(outcome, kind)


async def test_an_early_answer_by_a_server_that_stops_reading_is_not_accepted(tmp_path: Path) -> None:
    async def early(connection: RawConnection) -> None:
        await connection.read_head()
        await connection.send(http_response(code=413))
        await asyncio.Event().wait()

    async with RawServer(early) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
        assert isinstance(await create_task(picwish, tmp_path, size=30_000_000), NotAccepted)


async def test_a_redirect_is_not_followed_and_the_key_stays(tmp_path: Path) -> None:
    async with RawServer(read_without_reply) as other:
        for code in (301, 302, 303, 307, 308):
            moved = http_response(code=code, headers={"Location": other.url + "/elsewhere"})
            outcome = await create_with_reply(tmp_path, moved)
            assert isinstance(outcome, NotAccepted)
        assert isinstance(
            await create_with_reply(tmp_path, http_response(code=302, headers={"Location": "http://☃.example"})),
            NotAccepted,
        )
        assert other.connections == []


async def test_proxies_and_certificates_in_the_environment_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawServer(read_without_reply) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
        assert isinstance(await create_with_reply(tmp_path, http_response(ACCEPTED_ANSWER)), Accepted)
        assert proxy.connections == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Refused),
        (401, Unauthorized),
        (402, Unauthorized),
        (403, Unauthorized),
        (404, NotAccepted),
        (405, NotAccepted),
        (413, Refused),
        (415, Refused),
        (422, Refused),
        (429, NotAccepted),
        (500, InDoubt),
        (502, InDoubt),
        (503, NotAccepted),
        (504, InDoubt),
    ],
)
async def test_each_code_has_its_meaning_with_and_without_json(tmp_path: Path, code: int, kind: type) -> None:
    assert isinstance(await create_with_reply(tmp_path, http_response("<html>oops</html>", code=code)), kind)
    assert isinstance(
        await create_with_reply(tmp_path, http_response({"status": code, "message": "oops"}, code=code)), kind
    )
    assert isinstance(
        await create_with_reply(tmp_path, http_response({"status": code, "message": "oops"}, code=200)), kind
    )


async def test_a_429_is_busy_with_the_requested_pause(tmp_path: Path) -> None:
    outcome = await create_with_reply(tmp_path, http_response(code=429, headers={"Retry-After": "7"}))
    assert outcome == NotAccepted(outcome.reason, 7.0, rate_limited=True)  # type: ignore[attr-defined]


async def test_a_413_reports_the_size_that_was_sent(tmp_path: Path) -> None:
    outcome = await create_with_reply(tmp_path, http_response(code=413), size=2_500_000)
    assert isinstance(outcome, Refused)
    assert outcome.problem.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert "2.5 MB" in outcome.problem.message
    assert "30 MB" in outcome.problem.message


@pytest.mark.parametrize(
    "body",
    [
        "<html>all is well</html>",
        "",
        "[]",
        '{"status": 200, "data": {"task_id": ""}}',
        '{"status":200,"data":[]}',
        "{}",
    ],
)
async def test_a_200_without_a_task_id_is_in_doubt(tmp_path: Path, body: str) -> None:
    assert isinstance(await create_with_reply(tmp_path, http_response(body)), InDoubt)


async def test_damaged_compression_is_in_doubt_and_whole_compression_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(ACCEPTED_ANSWER).encode())
    headers = {"Content-Encoding": "gzip"}
    assert isinstance(await create_with_reply(tmp_path, http_response(packed, headers=headers)), Accepted)
    assert isinstance(await create_with_reply(tmp_path, http_response(b"\0" * 30, headers=headers)), InDoubt)


async def test_a_task_id_in_an_answer_that_breaks_off_is_kept(tmp_path: Path) -> None:
    whole = json.dumps({"status": 200, "data": {"task_id": TASK_ID, "image": "A" * 4000}})
    cut = http_response(whole)[:-3000]

    async def stall(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(cut)
        await asyncio.Event().wait()

    for handler in (reply_with(cut), stall):
        async with RawServer(handler) as server, make_client(server.url, **SHORT_TIMEOUTS) as picwish:
            outcome = await create_task(picwish, tmp_path, sync=1, return_type=2)
        assert isinstance(outcome, Accepted)
        assert outcome.task_id == TASK_ID
        assert not (tmp_path / "sink").exists()


async def test_an_answer_that_breaks_off_before_the_task_id_is_in_doubt(tmp_path: Path) -> None:
    whole = http_response(ACCEPTED_ANSWER)
    for size in (10, whole.index(b"{"), whole.index(TASK_ID.encode()) + 5):
        assert isinstance(await create_with_reply(tmp_path, whole[:size]), InDoubt)


async def test_a_5xx_that_names_its_task_can_be_queried(tmp_path: Path) -> None:
    outcome = await create_with_reply(tmp_path, http_response(ACCEPTED_ANSWER, code=500))
    assert isinstance(outcome, Accepted)


async def test_the_answer_is_taken_as_soon_as_its_json_ends(tmp_path: Path) -> None:
    async def open_ended(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        text = json.dumps(ACCEPTED_ANSWER).encode()
        await connection.send(b"%x\r\n%b\r\n" % (len(text), text))
        await asyncio.Event().wait()

    request_timeouts = RequestTimeouts(create_silence=60.0)
    async with (
        RawServer(open_ended) as server,
        make_client(server.url, timeout=60.0, request_timeouts=request_timeouts) as picwish,
    ):
        async with asyncio.timeout(5):
            assert isinstance(await create_task(picwish, tmp_path), Accepted)


async def test_a_drip_fed_answer_is_bounded_by_the_deadline(tmp_path: Path) -> None:
    async def drip(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
        while True:
            await connection.send(b" ")
            await asyncio.sleep(0.02)

    async with RawServer(drip) as server, make_client(server.url, post_deadline=0.3) as picwish:
        async with asyncio.timeout(5):
            assert isinstance(await create_task(picwish, tmp_path), InDoubt)


async def test_the_text_of_an_error_is_not_waited_for_long(tmp_path: Path) -> None:
    async def drip(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 400 Bad\r\nContent-Length: 100000\r\n\r\n{")
        while True:
            await connection.send(b" ")
            await asyncio.sleep(0.02)

    async with RawServer(drip) as server, make_client(server.url, timeout=0.3) as picwish:
        async with asyncio.timeout(5):
            assert isinstance(await create_task(picwish, tmp_path), Refused)


async def test_an_endless_answer_is_in_doubt_and_not_kept_in_memory(tmp_path: Path) -> None:
    async def flood(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(b'HTTP/1.1 200 OK\r\n\r\n{"message": "')
        while True:
            await connection.send(b"x" * 65536)

    async with RawServer(flood) as server, make_client(server.url) as picwish:
        outcome = await create_task(picwish, tmp_path)
    assert isinstance(outcome, InDoubt)
    assert "1048576" in outcome.reason


async def test_a_synchronous_answer_with_an_address_is_finished(tmp_path: Path) -> None:
    outcome = await create_with_reply(
        tmp_path, http_response(task_envelope(image="https://cdn.example/r.jpg?Signature=s3")), sync=1
    )
    assert isinstance(outcome, Finished)
    assert outcome.image_url == "https://cdn.example/r.jpg?Signature=s3"
    assert outcome.spooled_bytes is None
    assert "s3" not in repr(outcome)


async def test_the_image_of_a_synchronous_response_is_in_the_sink(tmp_path: Path) -> None:
    (tmp_path / "sink").write_bytes(b"older and longer" * 100_000)
    outcome = await create_with_reply(
        tmp_path, http_response(task_envelope(image=base64.b64encode(PICTURE).decode())), sync=1, return_type=2
    )
    assert isinstance(outcome, Finished)
    assert outcome.spooled_bytes == len(PICTURE)
    assert (tmp_path / "sink").read_bytes() == PICTURE
    assert (tmp_path / "sink").stat().st_mode & 0o7777 == 0o600


async def test_finished_without_task_id_but_with_a_picture_is_finished(tmp_path: Path) -> None:
    body: dict[str, object] = {"status": 200, "data": {"image": base64.b64encode(PICTURE).decode()}}
    outcome = await create_with_reply(tmp_path, http_response(body), sync=1, return_type=2)
    assert isinstance(outcome, Finished)
    assert outcome.task_id is None
    assert (tmp_path / "sink").read_bytes() == PICTURE


@pytest.mark.parametrize("image", [None, "", "!!! not base64 !!!", "ftp://example.com/x.jpg", "http://x\ud800"])
async def test_a_finished_task_without_a_usable_image_is_queried_by_its_id(tmp_path: Path, image: str | None) -> None:
    outcome = await create_with_reply(tmp_path, http_response(task_envelope(image=image)), sync=1, return_type=2)
    assert isinstance(outcome, Accepted)
    assert not (tmp_path / "sink").exists()


async def test_a_result_that_cannot_be_stored_is_queried_by_its_task_id(tmp_path: Path) -> None:
    picture = base64.b64encode(PICTURE).decode()
    reply = http_response(task_envelope(image=picture))
    assert isinstance(await create_with_reply(tmp_path / "missing", reply, sync=1, return_type=2), Accepted)
    nameless: dict[str, object] = {"status": 200, "data": {"state": 1, "image": picture}}
    outcome = await create_with_reply(tmp_path / "missing", http_response(nameless), sync=1, return_type=2)
    assert isinstance(outcome, InDoubt)
    assert "No such file" in outcome.reason


async def test_a_task_that_failed_at_once_is_returned_with_its_state(tmp_path: Path) -> None:
    outcome = await create_with_reply(tmp_path, http_response(task_envelope(-7, state_detail="broken")), sync=1)
    assert isinstance(outcome, TaskFailed)
    assert (outcome.task_id, outcome.state, outcome.is_retryable) == (TASK_ID, -7, False)
    assert outcome.problem.code is ErrorCode.TASK_FAILED
    assert "-7" in outcome.problem.message
    assert "broken" in outcome.problem.message


async def test_the_image_is_let_go_of_when_it_was_sent(tmp_path: Path) -> None:
    """While a synchronous POST waits for its response, no object of ours may hold the image."""

    class Picture(bytearray):
        pass

    alive: list[bool] = []
    picture = Picture(b"x" * 1_000_000)
    watch = weakref.ref(picture)

    async def slow_answer(connection: RawConnection) -> None:
        await connection.read_request()
        alive.append(watch() is not None)
        await connection.send(http_response(ACCEPTED_ANSWER))

    at_sent: list[bool] = []

    async def started() -> None: ...

    async with RawServer(slow_answer) as server, make_client(server.url) as picwish:
        # The caller keeps a reference, as real callers do.
        request = CreateRequest(image=memoryview(picture))
        waiting = picwish.create(
            request,
            sink=tmp_path / "sink",
            on_send_start=started,
            on_body_sent=lambda: at_sent.append(watch() is not None),
        )
        del picture
        assert watch() is not None
        assert isinstance(await waiting, Accepted)
    assert at_sent == [False]
    assert alive == [False]


async def test_cancelling_propagates(tmp_path: Path) -> None:
    async with (
        RawServer(read_without_reply) as server,
        make_client(server.url, timeout=60, request_timeouts=RequestTimeouts()) as picwish,
    ):
        witness = CreateHooks()
        work = asyncio.ensure_future(create_task(picwish, tmp_path, witness=witness))
        while "sent" not in witness.calls:
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


async def test_the_key_is_in_no_text(tmp_path: Path) -> None:
    message = f"no such key {KEY}, see https://example.com/help?token=abc#x"
    outcome = await create_with_reply(tmp_path, http_response({"status": 401, "message": message}, code=401))
    assert isinstance(outcome, Unauthorized)
    assert KEY not in repr(outcome)
    assert "abc" not in repr(outcome)
    assert "https://example.com/help" in outcome.message
    leaked = http_response(task_envelope(-9, state_detail=f"at {KEY}"))
    assert KEY not in repr(await create_with_reply(tmp_path, leaked))
