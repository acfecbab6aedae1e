"""Requested faults, and what the ledger says after each."""

import asyncio
import io
import socket
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from picwish_watchd.simulator import (
    HTML_PAGE,
    CutResponse,
    Drip,
    DuplicateTaskId,
    EndIn,
    Fault,
    Hang,
    NeverEnd,
    RefuseConnections,
    Reply,
    Reset,
    Rewrite,
    SendRaw,
    TruncateBody,
    drop_fields,
    nullify_fields,
    redirect,
    stringify_numbers,
)
from picwish_watchd.simulator.faults import Action
from tests.unit.simulator.simulator_client import ManualClock, SimulatorClient, make_quartered_image


async def count_charges(call: SimulatorClient, clock: ManualClock) -> int:
    await call.simulator.wait_until_rendered()
    clock.at += 100
    return len(call.simulator.ledger)


@pytest.mark.parametrize("at", ["head", "body"])
async def test_a_reset_before_the_work_leaves_no_task(client: SimulatorClient, at: str) -> None:
    client.simulator.script.add(Fault("create", Reset(at=at)))  # type: ignore[arg-type]
    with pytest.raises(httpx.ReadError):
        await client.create()
    assert client.simulator.tasks == {}
    assert client.simulator.requests[0].status is None
    assert (client.simulator.requests[0].sha256 is None) == (at == "head")
    assert client.simulator.script.pending == []
    assert (await client.create()).status_code == 200


async def test_a_reset_before_the_body_is_seen_while_it_is_still_being_sent(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", Reset(at="head")))
    with pytest.raises((httpx.ReadError, httpx.WriteError)):
        await client.create(b"x" * 20_000_000)


@pytest.mark.parametrize(
    "action", [Reset(at="work"), SendRaw(b"HTTP/1.1 200 OK\r\n", at="work"), CutResponse(0), CutResponse(100)]
)
async def test_accepted_then_lost_leaves_a_task_that_is_charged(
    client: SimulatorClient, clock: ManualClock, action: Action
) -> None:
    client.simulator.script.add(Fault("create", action))
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.create()
    assert len(client.simulator.tasks) == 1
    assert await count_charges(client, clock) == 1


async def test_a_gateway_error_after_the_work_leaves_a_task_that_is_charged(
    client: SimulatorClient, clock: ManualClock
) -> None:
    client.simulator.script.add(Fault("create", Reply(502, b"<h1>Bad gateway", at="work")))
    assert (await client.create()).status_code == 502
    assert await count_charges(client, clock) == 1


async def test_a_scripted_status_has_the_envelope_by_default(client: SimulatorClient) -> None:
    client.simulator.script.add(
        Fault("create", Reply(503, headers={"Retry-After": "7"}, at="head")),
        Fault("create", HTML_PAGE),
        Fault("create", redirect("http://127.0.0.1:9/elsewhere")),
    )
    busy, page, moved = [await client.create() for _ in range(3)]
    assert (busy.status_code, busy.json()["status"], busy.headers["retry-after"]) == (503, 503, "7")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html")
    assert (moved.status_code, moved.headers["location"]) == (307, "http://127.0.0.1:9/elsewhere")
    assert client.simulator.tasks == {}


@pytest.mark.parametrize("at", ["head", "body", "work"])
async def test_a_hang_lasts_until_the_simulator_stops(client: SimulatorClient, at: str) -> None:
    client.simulator.script.add(Fault("create", Hang(at=at)))  # type: ignore[arg-type]
    with pytest.raises(httpx.ReadTimeout):
        await client.http.post(
            client.simulator.url + "/api/tasks/visual/scale-pro",
            headers={"X-API-KEY": "k"},
            files={"image_file": make_quartered_image()},
            timeout=httpx.Timeout(5, read=0.1),
        )
    assert len(client.simulator.tasks) == (at == "work")


async def test_a_hang_of_some_seconds_ends_in_a_reset_and_the_task_stays(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", Hang(at="work", seconds=0.05)))
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.create()
    assert len(client.simulator.tasks) == 1


async def test_garbage_is_no_http(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("query", SendRaw()))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.query("any")


async def test_a_drip_takes_its_time_and_then_normal_service_returns(
    client: SimulatorClient, clock: ManualClock
) -> None:
    task_id = await client.create_task()
    client.simulator.script.add(Fault("query", Drip(rate=100)))
    began = clock.at
    response = await client.query(task_id)
    assert response.json()["data"]["task_id"] == task_id
    assert clock.at - began > len(response.content) / 100
    began = clock.at
    await client.query(task_id)
    assert clock.at == began


@pytest.mark.parametrize(("state", "detail"), [(-8, "too slow"), (-1, None), (-99, None)])
async def test_a_scripted_task_failure_costs_nothing(client: SimulatorClient, state: int, detail: str | None) -> None:
    client.simulator.script.add(Fault("create", EndIn(state, detail)))
    data = await client.create_finished()
    assert data["state"] == state
    assert data["state_detail"] == (detail or "Failed")
    assert client.simulator.ledger == []


async def test_a_success_may_have_no_picture_and_is_charged_all_the_same(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", EndIn(1)))
    data = await client.create_finished(b"no image")
    assert (data["state"], data["image"], data["image_width"]) == (1, "", 0)
    assert client.simulator.credits_used == 5


async def test_a_task_can_be_made_never_to_end(client: SimulatorClient, clock: ManualClock) -> None:
    client.simulator.script.add(Fault("create", NeverEnd()))
    data = await client.create_finished()
    assert (data["state"], data["progress"]) == (4, 50)
    clock.at += 1_000_000
    assert (await client.query_data(data["task_id"]))["state"] == 4
    assert client.simulator.ledger == []


async def test_a_sync_create_of_a_task_that_never_ends_is_never_answered(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", NeverEnd()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.create(sync="1"), 0.1)


async def test_a_create_can_be_answered_without_or_with_anothers_task_id(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", drop_fields("task_id")), Fault("create", DuplicateTaskId(), times=2))
    assert (await client.create()).json()["data"] == {}
    first = await client.create_task()
    assert first in client.simulator.tasks
    assert await client.create_task() == first
    assert await client.create_task() != first
    assert len(client.simulator.tasks) == 2


async def test_a_duplicate_of_nothing_is_a_new_task(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", DuplicateTaskId()))
    assert await client.create_task() in client.simulator.tasks


async def test_data_can_come_with_strings_for_numbers_or_nulls_or_without_the_image(client: SimulatorClient) -> None:
    good = await client.create_finished()
    client.simulator.script.add(
        Fault("query", stringify_numbers()),
        Fault("query", nullify_fields("task_id", "state", "image")),
        Fault("query", drop_fields("image")),
        Fault("query", Rewrite(lambda data: data | {"created_at": 1.5e12})),
    )
    strings, some, bare, late = [await client.query_data(good["task_id"]) for _ in range(4)]
    assert (strings["state"], strings["image_width"]) == ("1", "96")
    assert {name for name, value in some.items() if value is not None} == {"task_id", "state", "image"}
    assert bare.keys() == good.keys() - {"image"}
    assert late["created_at"] == 1.5e12


async def test_a_rewrite_leaves_errors_alone(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("query", drop_fields("task_id")))
    response = await client.query("nobody")
    assert (response.status_code, response.json()["status"]) == (404, 404)


async def test_a_result_can_be_wrong_in_every_way(client: SimulatorClient) -> None:
    url = (await client.create_finished())["image"]
    whole = (await client.http.get(url)).content
    client.simulator.script.add(
        Fault("download", HTML_PAGE),
        Fault("download", TruncateBody(len(whole) // 2)),
        Fault("download", Reply(200, b"", {"Content-Type": "image/jpeg"})),
        Fault("download", Reply(404, b"<Error/>")),
        Fault("download", CutResponse(len(whole) // 2)),
    )
    page, half, empty, dead = [await client.http.get(url) for _ in range(4)]
    assert page.content.startswith(b"<!doctype html>")
    assert half.content == whole[: len(whole) // 2]
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(half.content)).load()
    assert (empty.status_code, empty.content, dead.status_code) == (200, b"", 404)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.http.get(url)
    assert (await client.http.get(url)).content == whole


async def test_refuse_closes_both_ports_until_repair(client: SimulatorClient) -> None:
    url = (await client.create_finished())["image"]
    client.simulator.script.add(Fault("create", RefuseConnections()))
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.create()
    for address in (client.simulator.url, url):
        with pytest.raises(httpx.ConnectError):
            await client.http.get(address)
    await client.simulator.repair()
    assert (await client.create()).status_code == 200
    assert (await client.http.get(url)).status_code == 200


async def test_a_fault_happens_as_often_as_requested_and_earlier_ones_first(client: SimulatorClient) -> None:
    client.simulator.script.add(
        Fault("create", Reply(500), times=2), Fault("create", Reply(502)), Fault("create", Reply(504), times=0)
    )
    assert [(await client.create()).status_code for _ in range(4)] == [500, 500, 502, 200]


async def test_a_fault_may_wait_for_the_nth_request_of_its_operation(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", Reply(500), nth=3))
    task_id = await client.create_task()
    await client.query(task_id)
    assert [(await client.create()).status_code for _ in range(3)] == [200, 500, 200]


async def test_a_fault_may_wait_for_one_image_in_all_its_requests(client: SimulatorClient) -> None:
    unlucky = make_quartered_image("PNG")
    await client.create_task(unlucky)
    sha256 = client.simulator.requests[0].sha256
    client.simulator.script.add(
        Fault("create", Reply(500), sha256=sha256),
        Fault("query", Reply(501, at="head"), sha256=sha256),
        Fault("download", Reply(503, at="head"), sha256=sha256),
    )
    good = await client.create_finished(make_quartered_image())
    assert (await client.http.get(good["image"])).status_code == 200
    assert (await client.create(unlucky)).status_code == 500
    bad = await client.create_task(unlucky)
    assert (await client.query(bad)).status_code == 501
    await client.simulator.wait_until_rendered()
    await client.simulator.settings.clock.sleep(60)
    assert (await client.http.get((await client.query_data(bad))["image"])).status_code == 503


async def test_a_fault_may_depend_on_a_condition(client: SimulatorClient) -> None:
    client.simulator.script.add(Fault("create", Reply(500), when=lambda request: request.fields.get("type") == "1"))
    assert (await client.create(type="0")).status_code == 200
    assert (await client.create(type="1")).status_code == 500


async def test_a_request_that_is_turned_away_does_not_use_up_what_waits_behind(client: SimulatorClient) -> None:
    client.simulator.settings = replace(client.simulator.settings, key="secret")
    client.simulator.script.add(Fault("create", EndIn(-1)))
    assert (await client.create(headers={})).status_code == 401
    assert len(client.simulator.script.pending) == 1
    client.simulator.script.clear()
    assert (await client.create_finished())["state"] == 1


@pytest.mark.parametrize(
    ("on", "do", "more", "match"),
    [
        ("upload", Reset(), {}, "unknown operation"),
        ("create", Reset(at="head"), {"sha256": "ab"}, "not known at its head"),
        ("query", NeverEnd(), {}, "only for creates"),
    ],
)
def test_a_fault_that_could_never_happen_is_refused(on: str, do: Action, more: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Fault(on, do, **more)  # type: ignore[arg-type]


async def test_broken_down_everything_is_500_and_nothing_is_accepted(client: SimulatorClient) -> None:
    url = (await client.create_finished())["image"]
    client.simulator.break_down()
    assert (await client.create()).status_code == 500
    assert (await client.query("any")).status_code == 500
    assert (await client.http.get(url)).status_code == 500
    await client.simulator.repair()
    assert (await client.create()).status_code == 200
    assert len(client.simulator.tasks) == 2


async def test_broken_down_and_refusing_no_connection_is_taken(client: SimulatorClient) -> None:
    url = client.simulator.url
    client.simulator.break_down(refuse=True)
    with pytest.raises(httpx.ConnectError):
        await client.create()
    # Bind without SO_REUSEADDR, or a server that asks for any port could get this one.
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", httpx.URL(url).port))
    await client.simulator.repair()
    assert client.simulator.url == url
    assert (await client.create()).status_code == 200
