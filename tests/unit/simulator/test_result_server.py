"""The port that serves results."""

import os
from dataclasses import replace

import pytest

from tests.unit.simulator.simulator_client import KEY_HEADERS, ManualClock, SimulatorClient, make_quartered_image


async def test_a_result_is_handed_out_without_a_key_from_another_port(client: SimulatorClient) -> None:
    data = await client.create_finished()
    response = await client.http.get(data["image"])
    assert data["image"].startswith(client.simulator.results_url + "/")
    assert client.simulator.results_url != client.simulator.url
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["etag"]
    assert len(response.content) == int(response.headers["content-length"])
    request = client.simulator.requests[-1]
    assert (request.operation, request.task_id, request.has_key) == ("download", data["task_id"], False)


async def test_a_key_that_comes_with_a_download_is_noticed(client: SimulatorClient) -> None:
    data = await client.create_finished()
    await client.http.get(data["image"], headers=KEY_HEADERS)
    assert client.simulator.requests[-1].has_key


async def test_head_gives_the_length_and_no_body(client: SimulatorClient) -> None:
    data = await client.create_finished()
    response = await client.http.head(data["image"])
    assert response.status_code == 200
    assert round(int(response.headers["content-length"]) / 1024, 2) == data["image_size_kb"]
    assert response.content == b""
    assert (await client.http.get(data["image"])).status_code == 200


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=10-19", 10, 20), ("bytes=100-", 100, None), ("bytes=-7", -7, None), ("bytes=5-9999999", 5, None)],
)
async def test_a_range_request_gets_that_range(
    client: SimulatorClient, header: str, start: int, end: int | None
) -> None:
    url = (await client.create_finished())["image"]
    whole = (await client.http.get(url)).content
    response = await client.http.get(url, headers={"Range": header})
    assert response.status_code == 206
    assert response.content == whole[start:end]
    first = start % len(whole)
    assert response.headers["content-range"] == f"bytes {first}-{first + len(response.content) - 1}/{len(whole)}"


async def test_a_range_behind_the_end_is_416_and_a_strange_one_is_ignored(client: SimulatorClient) -> None:
    url = (await client.create_finished())["image"]
    assert (await client.http.get(url, headers={"Range": "bytes=9999999-"})).status_code == 416
    assert (await client.http.get(url, headers={"Range": "bytes=0-1,4-5"})).status_code == 200
    assert (await client.http.get(url, headers={"Range": "bytes=-"})).status_code == 200


async def test_each_query_gives_a_fresh_url_and_old_ones_expire_after_an_hour(
    client: SimulatorClient, clock: ManualClock
) -> None:
    data = await client.create_finished()
    second = (await client.query_data(data["task_id"]))["image"]
    assert second != data["image"]
    clock.at += 1800
    fresh = (await client.query_data(data["task_id"]))["image"]
    clock.at += 1799
    # It expires after its own hour.
    assert (await client.http.get(fresh)).status_code == 404
    clock.at += 1
    dead = await client.http.get(data["image"])
    assert dead.status_code == 403
    assert dead.headers["content-type"] == "application/xml"
    assert "<Code>AccessDenied</Code>" in dead.text


async def test_a_url_that_was_tampered_with_is_refused(client: SimulatorClient) -> None:
    data = await client.create_finished()
    other = await client.create_finished()
    for url in (
        data["image"].replace(data["task_id"], other["task_id"]),
        data["image"].replace("Expires=1", "Expires=2"),
        data["image"].partition("?")[0],
        client.simulator.results_url + "/results/%C3%A9.jpg?Expires=soon",
        client.simulator.results_url + "/etc/passwd",
    ):
        response = await client.http.get(url)
        assert response.status_code == 403, url
        assert "<Code>SignatureDoesNotMatch</Code>" in response.text
    assert (await client.http.post(data["image"])).status_code == 405


async def test_a_large_result_arrives_whole(client: SimulatorClient) -> None:
    client.simulator.settings = replace(client.simulator.settings, enhance="echo")
    image = make_quartered_image() + os.urandom(3_000_000)
    data = await client.create_finished(image)
    assert (await client.http.get(data["image"])).content == image
