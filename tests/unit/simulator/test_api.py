"""The API as its document describes it."""

import base64
import io
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from picwish_watchd.simulator import Settings
from picwish_watchd.simulator.rate_window import RateWindow
from picwish_watchd.simulator.tasks import TaskStore
from tests.unit.simulator.simulator_client import (
    KEY_HEADERS,
    TASKS_PATH,
    ManualClock,
    SimulatorClient,
    make_quartered_image,
)

FIELD_TYPES = {
    "task_id": str,
    "created_at": int,
    "processed_at": int,
    "completed_at": int,
    "image": str,
    "return_type": int,
    "type": int,
    "progress": int,
    "state": int,
    "image_width": int,
    "image_height": int,
    "image_size_kb": (int, float),
    "out_format": str,
    "state_detail": str,
    "download_time": (int, float),
    "time_elapsed": (int, float),
}


def change_settings(call: SimulatorClient, **settings: object) -> None:
    call.simulator.settings = replace(call.simulator.settings, **settings)  # type: ignore[arg-type]


async def test_a_create_is_answered_with_a_task_id_in_the_documented_envelope(client: SimulatorClient) -> None:
    response = await client.create()
    assert response.status_code == 200
    assert response.json().keys() == {"status", "message", "data"}
    assert response.json()["status"] == 200
    assert response.json()["message"] == "success"
    assert response.json()["data"].keys() == {"task_id"}


async def test_a_task_goes_from_queued_over_preparing_and_processing_to_success(
    client: SimulatorClient, clock: ManualClock
) -> None:
    task_id = await client.create_task()
    await client.simulator.wait_until_rendered()
    states = []
    for _ in range(11):
        data = await client.query_data(task_id)
        states.append((data["state"], data["progress"], data["state_detail"]))
        clock.at += 1
    assert states[0] == (0, 0, "Queued")
    assert states[1] == (2, 10, "Preparing")
    assert states[2:10] == [(4, 10 * i, "Processing") for i in range(2, 10)]
    assert states[10] == (1, 100, "Complete")


async def test_every_answer_has_all_documented_fields_in_their_types(
    client: SimulatorClient, clock: ManualClock
) -> None:
    task_id = await client.create_task()
    for seconds in (0, 2, 60):
        clock.at += seconds
        await client.simulator.wait_until_rendered()
        data = await client.query_data(task_id)
        assert data.keys() == FIELD_TYPES.keys()
        for name, kind in FIELD_TYPES.items():
            assert isinstance(data[name], kind), name  # type: ignore[arg-type]


async def test_times_are_unix_seconds_and_zero_before_they_are_known(
    client: SimulatorClient, clock: ManualClock
) -> None:
    began = int(clock.at)
    task_id = await client.create_task()
    await client.simulator.wait_until_rendered()
    data = await client.query_data(task_id)
    assert (data["created_at"], data["processed_at"], data["completed_at"]) == (began, 0, 0)
    clock.at += 3
    data = await client.query_data(task_id)
    assert (data["processed_at"], data["completed_at"], data["time_elapsed"]) == (began, 0, 2.5)
    clock.at += 100
    data = await client.query_data(task_id)
    assert (data["completed_at"], data["time_elapsed"]) == (began + 10, 9.5)


async def test_the_result_is_the_enlarged_source(client: SimulatorClient) -> None:
    data = await client.create_finished(make_quartered_image("PNG"))
    result = (await client.http.get(data["image"])).content
    with Image.open(io.BytesIO(result)) as image:
        assert image.format == "PNG"
        assert image.size == (data["image_width"], data["image_height"]) == (96, 64)
        red, green, blue = image.convert("RGB").getpixel((24, 16))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)
    assert data["out_format"] == "png"
    assert data["image_size_kb"] == round(len(result) / 1024, 2)


async def test_return_type_2_returns_the_image_itself(client: SimulatorClient) -> None:
    data = await client.create_finished(return_type="2")
    with Image.open(io.BytesIO(base64.b64decode(data["image"], validate=True))) as image:
        assert image.size == (96, 64)
    assert data["return_type"] == 2


async def test_sync_1_answers_with_the_finished_task(client: SimulatorClient, clock: ManualClock) -> None:
    began = clock.at
    response = await client.create(sync="1")
    data = response.json()["data"]
    assert clock.at == pytest.approx(began + 10, abs=0.01)
    assert (data["state"], data["progress"]) == (1, 100)
    assert (await client.http.get(data["image"])).status_code == 200


@pytest.mark.parametrize(("type", "price"), [("0", 5), ("1", 4)])
async def test_a_success_costs_5_or_4_credits_by_type(client: SimulatorClient, type: str, price: int) -> None:
    data = await client.create_finished(type=type)
    assert data["type"] == int(type)
    [charge] = client.simulator.ledger
    assert (charge.task_id, charge.credits, charge.type) == (data["task_id"], price, int(type))
    assert charge.sha256 == client.simulator.requests[0].sha256
    assert charge.charged_at == data["completed_at"]
    assert client.simulator.credits_used == price


async def test_a_success_is_charged_without_any_query(client: SimulatorClient, clock: ManualClock) -> None:
    await client.create_task()
    await client.simulator.wait_until_rendered()
    assert client.simulator.credits_used == 0
    clock.at += 10
    assert client.simulator.credits_used == 5


@pytest.mark.parametrize(
    ("image", "state"),
    [
        (b"no image at all", -7),
        (make_quartered_image("GIF"), -7),
        (make_quartered_image()[:-200], -7),
        (make_quartered_image("PNG")[:-40], -7),
        (make_quartered_image("BMP", (70, 10)), -5),
    ],
    ids=["text", "gif", "half jpeg", "half png", "too wide"],
)
async def test_a_bad_image_ends_its_task_and_costs_nothing(client: SimulatorClient, image: bytes, state: int) -> None:
    change_settings(client, max_side=64)
    data = await client.create_finished(image)
    assert (data["state"], data["image"], data["image_width"]) == (state, "", 0)
    assert data["state_detail"]
    assert data["completed_at"] > 0
    assert client.simulator.ledger == []


async def test_a_decompression_bomb_ends_its_task_as_too_large(client: SimulatorClient) -> None:
    bomb = bytearray(make_quartered_image("BMP"))
    bomb[18:26] = (40_000).to_bytes(4, "little") * 2
    assert (await client.create_finished(bytes(bomb)))["state"] == -5


@pytest.mark.parametrize(
    "fields",
    [{"type": "2"}, {"sync": "yes"}, {"return_type": "0"}, {"type": ""}],
    ids=lambda fields: str(fields),
)
async def test_a_wrong_parameter_is_refused_by_name(client: SimulatorClient, fields: dict[str, Any]) -> None:
    response = await client.create(**fields)
    assert response.status_code == response.json()["status"] == 400
    assert next(iter(fields)) in response.json()["message"]
    assert client.simulator.tasks == {}


async def test_neither_file_nor_url_is_refused(client: SimulatorClient) -> None:
    for response in (
        await client.http.post(client.simulator.url + TASKS_PATH, headers=KEY_HEADERS, data={"type": "0"}),
        await client.http.post(
            client.simulator.url + TASKS_PATH, headers=KEY_HEADERS, files={"image_file": ("a.jpg", b"")}
        ),
        await client.http.post(
            client.simulator.url + TASKS_PATH, headers=KEY_HEADERS, json={"image_url": "http://127.0.0.1/"}
        ),
        await client.http.post(client.simulator.url + TASKS_PATH, headers=KEY_HEADERS),
    ):
        assert response.status_code == 400
    assert client.simulator.tasks == {}


async def test_nothing_is_left_on_disk_of_what_was_refused(client: SimulatorClient) -> None:
    await client.create(type="9")
    await client.create_finished(b"no image")
    assert list(client.simulator._dispatcher.task_store.folder.iterdir()) == []


async def test_a_file_over_the_limit_is_413_with_or_without_a_content_length(client: SimulatorClient) -> None:
    change_settings(client, max_bytes=1000)
    assert (await client.create(b"x" * 1000)).status_code == 200
    assert (await client.create(b"x" * 1001)).status_code == 413
    assert (await client.create(b"x" * 10_000_000)).status_code == 413
    assert len(client.simulator.tasks) == 1


async def test_30_mb_are_taken(client: SimulatorClient) -> None:
    change_settings(client, enhance="echo")
    image = make_quartered_image("PNG") + bytes(31_457_280 - len(make_quartered_image("PNG")))
    data = await client.create_finished(image)
    assert data["state"] == 1
    assert (await client.http.get(data["image"])).content == image


@pytest.mark.parametrize("headers", [{}, {"X-API-KEY": ""}, {"X-API-KEY": "wrong"}])
async def test_a_missing_or_wrong_key_is_401_for_creates_and_queries(
    client: SimulatorClient, headers: dict[str, str]
) -> None:
    change_settings(client, key="secret")
    task_id = await client.create_task()
    for response in (await client.create(headers=headers), await client.query(task_id, headers=headers)):
        assert response.status_code == response.json()["status"] == 401
    assert len(client.simulator.tasks) == 1


async def test_the_key_is_not_kept_in_what_is_remembered(client: SimulatorClient) -> None:
    await client.create()
    [request] = client.simulator.requests
    assert request.has_key
    assert "secret" not in repr(request)


async def test_creates_and_queries_share_one_rate_and_refusals_do_not_count(
    client: SimulatorClient, clock: ManualClock
) -> None:
    change_settings(client, qps=2)
    task_id = await client.create_task()
    assert (await client.query(task_id)).status_code == 200
    clock.at += 0.999
    assert (await client.query(task_id)).status_code == 429
    response = await client.create()
    assert response.status_code == response.json()["status"] == 429
    clock.at += 0.002
    assert (await client.create()).status_code == 200
    assert [request.status for request in client.simulator.requests] == [200, 200, 429, 429, 200]


def test_a_rate_below_one_is_one_request_in_more_than_a_second() -> None:
    window = RateWindow()
    assert [window.admit(0.5, at) for at in (0.0, 1.9, 2.0, 3.0, 4.0)] == [True, False, True, False, True]


async def test_an_unknown_task_is_404_and_so_is_an_unknown_address(client: SimulatorClient) -> None:
    assert (await client.query("nobody")).json()["status"] == 404
    assert (await client.query("..%2f..")).status_code == 404
    assert (await client.http.get(client.simulator.url + "/", headers=KEY_HEADERS)).status_code == 404
    assert (await client.http.delete(client.simulator.url + TASKS_PATH, headers=KEY_HEADERS)).status_code == 404


async def test_a_finished_task_is_forgotten_after_its_retention(client: SimulatorClient, clock: ManualClock) -> None:
    data = await client.create_finished()
    clock.at = data["completed_at"] + 3599
    assert (await client.query_data(data["task_id"]))["state"] == 1
    url = (await client.query_data(data["task_id"]))["image"]
    clock.at += 1
    assert (await client.query(data["task_id"])).status_code == 404
    assert (await client.http.get(url)).status_code == 404
    assert len(client.simulator.ledger) == 1


async def test_results_that_are_never_queried_are_removed_too(client: SimulatorClient, clock: ManualClock) -> None:
    await client.create_finished()
    clock.at += 4000
    await client.create_task()
    await client.simulator.wait_until_rendered()
    assert len(list(client.simulator._dispatcher.task_store.folder.iterdir())) == 1


async def test_a_used_up_balance_is_401_for_creates_only(client: SimulatorClient, clock: ManualClock) -> None:
    change_settings(client, balance=9)
    task_id = await client.create_task(type="0")
    assert (await client.create(type="0")).status_code == 401
    await client.create_task(type="1")
    assert (await client.create(type="1")).status_code == 401
    assert (await client.query(task_id)).status_code == 200
    change_settings(client, balance=13)
    assert (await client.create(type="1")).status_code == 200
    await client.simulator.wait_until_rendered()
    clock.at += 10
    assert client.simulator.credits_used == 13


async def test_a_failed_task_gives_its_credits_back_to_the_balance(client: SimulatorClient, clock: ManualClock) -> None:
    change_settings(client, balance=5)
    await client.create_finished(b"no image")
    assert (await client.create()).status_code == 200


async def test_a_request_is_remembered_with_its_fields_and_its_image(client: SimulatorClient) -> None:
    task_id = await client.create_task(make_quartered_image(), type="1", sync="0")
    await client.query(task_id)
    create, query = client.simulator.requests
    assert (create.operation, create.method, create.path, create.status) == ("create", "POST", TASKS_PATH, 200)
    assert dict(create.fields) == {"type": "1", "sync": "0"}
    assert create.size == len(make_quartered_image())
    assert (query.operation, query.task_id, query.sha256) == ("query", task_id, create.sha256)


async def test_latency_comes_before_each_answer(client: SimulatorClient, clock: ManualClock) -> None:
    change_settings(client, latency=0.25)
    began = clock.at
    await client.query(await client.create_task())
    assert clock.at == began + 0.5


async def test_processing_times_follow_the_law_and_repeat_with_the_seed(clock: ManualClock) -> None:
    def times(settings: Settings) -> list[float]:
        store = TaskStore(settings)
        return [store._draw_processing_time() for _ in range(400)]

    first = times(Settings(processing=(8.0, 0.3), seed=1))
    assert first == times(Settings(processing=(8.0, 0.3), seed=1))
    assert first != times(Settings(processing=(8.0, 0.3), seed=2))
    assert sorted(first)[200] == pytest.approx(8.0, rel=0.1)
    assert times(Settings(processing=lambda: 4.0, time_scale=0.5)) == [2.0] * 400


@pytest.mark.parametrize(
    "wrong", [{"qps": 0}, {"enlarge": 0.5}, {"processing": (-1.0, 0.0)}, {"balance": -1}, {"latency": -1.0}]
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]
