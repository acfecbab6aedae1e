"""HTTP as it arrives on the connection."""

import asyncio
from dataclasses import replace

import pytest

from picwish_watchd.simulator import Fault, Hang, Settings, Simulator, dispatch, http_connection
from tests.unit.simulator.simulator_client import TASKS_PATH, ManualClock, SimulatorClient, make_quartered_image


async def exchange_bytes(call: SimulatorClient, data: bytes, *, more: bytes = b"") -> bytes:
    """Send bytes, wait for the first response, send more, and read until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(call.simulator.url.rpartition(":")[2]))
    writer.write(data)
    response = await reader.readuntil(b"\r\n\r\n") if more else b""
    writer.write(more)
    if not more:
        writer.write_eof()
    async with asyncio.timeout(5):
        response += await reader.read()
    writer.close()
    await writer.wait_closed()
    return response


def post_request(body: bytes, *headers: str, key: str = "X-API-KEY: k") -> bytes:
    lines = [f"POST {TASKS_PATH} HTTP/1.1", "Host: x", key, f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


FORM = (
    b'--B\r\nContent-Disposition: form-data; name="image_file"; filename="a"\r\n\r\n'
    + make_quartered_image()
    + b"\r\n--B--\r\n"
)
MULTIPART = "Content-Type: multipart/form-data; boundary=B"


async def test_a_connection_serves_many_requests_even_sent_at_once(client: SimulatorClient) -> None:
    response = await exchange_bytes(client, (post_request(FORM, MULTIPART) + FORM) * 3)
    assert response.count(b"HTTP/1.1 200 ") == 3
    assert len(client.simulator.tasks) == 3


async def test_connection_close_is_obeyed(client: SimulatorClient) -> None:
    response = await exchange_bytes(
        client, post_request(FORM, MULTIPART, "Connection: close") + FORM + post_request(FORM, MULTIPART)
    )
    assert response.count(b"HTTP/1.1 ") == 1


async def test_a_client_that_expects_100_continue_gets_it(client: SimulatorClient) -> None:
    head = post_request(FORM, MULTIPART, "Expect: 100-continue", "Connection: close")
    response = await exchange_bytes(client, head, more=FORM)
    assert response.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 " in response


async def test_a_client_that_expects_100_continue_is_refused_before_it_sends(client: SimulatorClient) -> None:
    client.simulator.settings = replace(client.simulator.settings, key="other")
    response = await exchange_bytes(client, post_request(FORM, MULTIPART, "Expect: 100-continue"))
    assert response.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in response.lower()


@pytest.mark.parametrize(("settings", "status"), [({"key": "other"}, 401), ({"qps": 0.001}, 429), ({}, 413)])
async def test_an_early_answer_reaches_a_client_that_is_still_sending(
    client: SimulatorClient, settings: dict[str, object], status: int
) -> None:
    client.simulator.settings = replace(client.simulator.settings, **settings)  # type: ignore[arg-type]
    await client.query("first")
    response = await client.create(b"x" * 33_000_000)
    assert response.status_code == status
    assert response.headers["connection"] == "close"
    assert client.simulator.tasks == {}


async def test_what_is_still_being_sent_is_read_only_up_to_a_bound(
    client: SimulatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_BYTES", 1000)
    head = post_request(b"", MULTIPART, key="Accept: */*").replace(b"Content-Length: 0", b"Content-Length: 99000000")
    _, writer = await asyncio.open_connection("127.0.0.1", int(client.simulator.url.rpartition(":")[2]))
    writer.write(head + bytes(99_000_000))
    with pytest.raises(ConnectionError):
        await writer.drain()
    writer.close()
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", 0.01)
    assert (await exchange_bytes(client, head, more=b"x")).startswith(b"HTTP/1.1 401 ")


async def test_a_chunked_form_is_taken_and_bounded(client: SimulatorClient) -> None:
    head = post_request(b"", MULTIPART).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(FORM[i : i + 99]), FORM[i : i + 99]) for i in range(0, len(FORM), 99))
    assert (await exchange_bytes(client, head + chunks + b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    client.simulator.settings = replace(client.simulator.settings, max_bytes=100)
    assert (await exchange_bytes(client, head + chunks + b"0\r\n\r\n")).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01 tls", b"GET / HTTP/1.1\r\n\r\n", b"POST " + b"x" * 100_000, b""])
async def test_what_is_no_http_ends_the_connection(client: SimulatorClient, data: bytes) -> None:
    assert await exchange_bytes(client, data) == b""
    assert client.simulator.requests == []


async def test_a_body_that_breaks_off_leaves_no_task_and_no_file(client: SimulatorClient) -> None:
    assert await exchange_bytes(client, post_request(FORM, MULTIPART) + FORM[:-20]) == b""
    assert client.simulator.tasks == {}
    assert list(client.simulator._dispatcher.task_store.folder.iterdir()) == []
    assert client.simulator.requests[0].status is None


async def test_a_requests_moment_is_that_of_its_first_byte(client: SimulatorClient, clock: ManualClock) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.simulator.url.rpartition(":")[2]))
    whole = post_request(FORM, MULTIPART, "Connection: close") + FORM
    writer.write(whole[:1])
    # The simulator's own clock does not advance here, so only the connection is waited for.
    await asyncio.sleep(0.05)
    began = clock.monotonic()
    clock.at += 5
    writer.write(whole[1:])
    await reader.read()
    writer.close()
    assert client.simulator.requests[0].received_at == began


async def test_the_number_of_remembered_requests_is_limited(
    client: SimulatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_RECORDED_REQUESTS", 10)
    for number in range(12):
        await client.query(str(number))
    assert [request.task_id for request in client.simulator.requests][-2:] == ["10", "11"]
    assert len(client.simulator.requests) == 10


async def test_a_client_that_never_reads_does_not_keep_the_simulator_from_stopping(clock: ManualClock) -> None:
    async with Simulator(Settings(qps=None, enhance="echo", clock=clock)) as simulator:
        simulator.script.add(Fault("download", Hang(), times=0))
        call = SimulatorClient(simulator, None)  # type: ignore[arg-type]
        form = FORM.replace(b"\r\n--B--", bytes(20_000_000) + b"\r\n--B--")
        form = form.replace(b"--B--", b'--B\r\nContent-Disposition: form-data; name="return_type"\r\n\r\n2\r\n--B--')
        form = form.replace(b"--B--", b'--B\r\nContent-Disposition: form-data; name="sync"\r\n\r\n1\r\n--B--')
        reader, writer = await asyncio.open_connection("127.0.0.1", int(call.simulator.url.rpartition(":")[2]))
        writer.write(post_request(form, MULTIPART) + form)
        await reader.readexactly(1)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 1
    writer.close()
