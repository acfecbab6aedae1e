"""Each request is counted once, by its kind and result."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.support.http_client import free_port
from tests.support.picwish_client import SHORT_TIMEOUTS, TASK_ID, CreateHooks, create_task, make_client, task_envelope
from tests.support.raw_server import RawServer, http_response, ignore_client, read_without_reply, reply_with


async def count_requests(tmp_path: Path, server: RawServer) -> Counter[tuple[str, str]]:
    """Send one request of each kind with the same fault."""
    counts: Counter[tuple[str, str]] = Counter()

    def count(kind: str, code: str) -> None:
        counts[kind, code] += 1

    async with server, make_client(server.url, on_request_done=count, **SHORT_TIMEOUTS) as picwish:
        await create_task(picwish, tmp_path)
        await picwish.query(TASK_ID, sink=tmp_path / "sink")
        await picwish.probe()
        await picwish.download(f"{server.url}/result", sink=tmp_path / "result")
    return counts


@pytest.mark.parametrize(
    ("reply", "code", "download"),
    [
        (http_response(task_envelope(4)), "200", "200"),
        (http_response({"status": 429, "message": "slow down"}), "429", "200"),
        (http_response(task_envelope(4), code=503), "503", "503"),
        (http_response({"status": 777, "message": "?"}), "other", "200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "200", "200"),
        (b"no HTTP at all\r\n\r\n", "broken", "broken"),
    ],
)
async def test_an_answer_counts_by_the_code_that_decided(
    tmp_path: Path, reply: bytes, code: str, download: str
) -> None:
    counts = await count_requests(tmp_path, RawServer(reply_with(*[reply] * 4)))
    assert counts == {("create", code): 1, ("query", code): 1, ("probe", code): 1, ("download", download): 1}


async def test_silence_and_closed_doors_count_by_a_word(tmp_path: Path) -> None:
    assert set(await count_requests(tmp_path, RawServer(read_without_reply))) == {
        (kind, "timeout") for kind in ("create", "query", "probe", "download")
    }
    counts: list[tuple[str, str]] = []
    url = f"http://127.0.0.1:{free_port()}"
    async with make_client(url, on_request_done=lambda *what: counts.append(what)) as picwish:
        await create_task(picwish, tmp_path)
        await picwish.probe()
        await picwish.download(f"{url}/result", sink=tmp_path / "result")
    assert counts == [("create", "no_connection"), ("probe", "no_connection"), ("download", "no_connection")]


async def test_what_never_left_or_was_given_up_by_ourselves_is_not_counted(tmp_path: Path) -> None:
    counts: list[tuple[str, str]] = []
    async with (
        RawServer(ignore_client) as server,
        make_client(server.url, on_request_done=lambda *what: counts.append(what)) as picwish,
    ):
        with pytest.raises(LookupError):
            await create_task(picwish, tmp_path, witness=CreateHooks(LookupError()))
        await picwish.download("ftp://elsewhere/result", sink=tmp_path / "result")
        asking = asyncio.create_task(picwish.query(TASK_ID, sink=tmp_path / "sink"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert counts == []
