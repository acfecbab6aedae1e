"""image_url: only URLs on this machine are fetched."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from picwish_watchd.simulator import image_fetch
from tests.unit.simulator.simulator_client import TASKS_PATH, SimulatorClient, make_quartered_image


@pytest.fixture
async def web_server() -> AsyncIterator[str]:
    """Start a web server with /picture, /chunked, /missing, /garbage, /silence, /half and /large."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        body = make_quartered_image()
        handlers = {
            b"/picture?a=%20b": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
            b"/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (len(body), body),
            b"/garbage": b"\x00\x01\r\n\r\n",
            b"/half": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nhalf",
            b"/large": b"HTTP/1.1 200 OK\r\n\r\n" + body * 100,
            b"/moved": b"HTTP/1.1 302 Found\r\nLocation: /chunked\r\nContent-Length: 0\r\n\r\n",
        }
        if path == b"/silence":
            await reader.read()
        writer.write(handlers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("path", ["/picture?a=%20b", "/chunked"])
async def test_a_loopback_url_is_truly_downloaded(client: SimulatorClient, web_server: str, path: str) -> None:
    data = await client.create_finished(image_url=web_server + path)
    assert (data["state"], data["image_width"]) == (1, 96)
    [charge] = client.simulator.ledger
    assert charge.sha256 == hashlib.sha256((web_server + path).encode()).hexdigest()


async def test_an_urlencoded_create_is_taken(client: SimulatorClient, web_server: str) -> None:
    response = await client.http.post(
        client.simulator.url + TASKS_PATH,
        headers={"X-API-KEY": "k"},
        data={"image_url": web_server + "/chunked", "sync": "1"},
    )
    assert response.json()["data"]["state"] == 1


async def test_the_file_wins_over_the_url(client: SimulatorClient) -> None:
    data = await client.create_finished(make_quartered_image("PNG"), image_url="http://127.0.0.1:1/never-asked")
    assert (data["state"], data["out_format"]) == (1, "png")


@pytest.mark.parametrize("path", ["/missing", "/garbage", "/half", "/moved"])
async def test_a_failed_download_is_state_minus_3_and_costs_nothing(
    client: SimulatorClient, web_server: str, path: str
) -> None:
    data = await client.create_finished(image_url=web_server + path)
    assert data["state"] == -3
    assert client.simulator.ledger == []


async def test_a_download_that_is_too_large_is_minus_5(client: SimulatorClient, web_server: str) -> None:
    client.simulator.settings = replace(client.simulator.settings, max_bytes=len(make_quartered_image()) * 50)
    client.simulator.remote_images["https://example.com/large"] = make_quartered_image() * 100
    assert (await client.create_finished(image_url=web_server + "/large"))["state"] == -5
    assert (await client.create_finished(image_url="https://example.com/large"))["state"] == -5


async def test_a_silent_server_is_given_up_after_the_documented_time(
    client: SimulatorClient, web_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert image_fetch.FETCH_TIMEOUT == 10.0
    monkeypatch.setattr(image_fetch, "FETCH_TIMEOUT", 0.05)
    assert (await client.create_finished(image_url=web_server + "/silence"))["state"] == -3


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a.jpg",
        "http://example.com/a.jpg",
        "http://127.0.0.1.example.com/a.jpg",
        "oss://bucket/a.jpg",
        "http://127.0.0.1:99999/a.jpg",
        "http://[::1/a.jpg",
        "http://127.0.0.1:1/refused.jpg",
    ],
)
async def test_no_request_ever_leaves_this_machine(client: SimulatorClient, url: str) -> None:
    assert (await client.create_finished(image_url=url))["state"] == -3


async def test_a_test_may_say_what_the_internet_holds(client: SimulatorClient) -> None:
    client.simulator.remote_images["https://example.com/a%20b.jpg"] = make_quartered_image()
    assert (await client.create_finished(image_url="https://example.com/a%20b.jpg"))["state"] == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/" + "x" * 500,
        "http://127.0.0.1/a b.jpg",
        "http://127.0.0.1/ä.jpg",
        "http://127.0.0.1/%zz",
        "ftp://127.0.0.1/a.jpg",
        "a.jpg",
    ],
)
async def test_a_url_that_is_too_long_not_encoded_or_of_another_scheme_is_400(
    client: SimulatorClient, url: str
) -> None:
    response = await client.create(image_url=url)
    assert response.status_code == 400
    assert "image_url" in response.json()["message"]
