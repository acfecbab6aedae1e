"""Each request is counted once, by its kind and by what decided."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.support.asking import free_port
from tests.support.picwishkit import HASTY, TASK, Witness, client, create, task
from tests.support.rawserver import RawServer, answering, deaf, reading_only, response


async def counted(tmp_path: Path, server: RawServer) -> Counter[tuple[str, str]]:
    """One request of each kind, all of the same fate."""
    counts: Counter[tuple[str, str]] = Counter()

    def count(kind: str, code: str) -> None:
        counts[kind, code] += 1

    async with server, client(server.url, counted=count, **HASTY) as picwish:
        await create(picwish, tmp_path)
        await picwish.query(TASK, sink=tmp_path / "sink")
        await picwish.probe()
        await picwish.download(f"{server.url}/result", sink=tmp_path / "result")
    return counts


@pytest.mark.parametrize(
    ("reply", "code", "download"),
    [
        (response(task(4)), "200", "200"),
        (response({"status": 429, "message": "slow down"}), "429", "200"),
        (response(task(4), code=503), "503", "503"),
        (response({"status": 777, "message": "?"}), "other", "200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "200", "200"),
        (b"no HTTP at all\r\n\r\n", "broken", "broken"),
    ],
)
async def test_an_answer_counts_by_the_code_that_decided(
    tmp_path: Path, reply: bytes, code: str, download: str
) -> None:
    counts = await counted(tmp_path, RawServer(answering(*[reply] * 4)))
    assert counts == {
        ("create", code): 1, ("query", code): 1, ("probe", code): 1, ("download", download): 1
    }  # fmt: skip


async def test_silence_and_closed_doors_count_by_a_word(tmp_path: Path) -> None:
    assert set(await counted(tmp_path, RawServer(reading_only))) == {
        (kind, "timeout") for kind in ("create", "query", "probe", "download")
    }
    counts: list[tuple[str, str]] = []
    url = f"http://127.0.0.1:{free_port()}"
    async with client(url, counted=lambda *what: counts.append(what)) as picwish:
        await create(picwish, tmp_path)
        await picwish.probe()
        await picwish.download(f"{url}/result", sink=tmp_path / "result")
    assert counts == [("create", "no_connection"), ("probe", "no_connection"), ("download", "no_connection")]


async def test_what_never_left_or_was_given_up_by_ourselves_is_not_counted(tmp_path: Path) -> None:
    counts: list[tuple[str, str]] = []
    async with RawServer(deaf) as server, client(server.url, counted=lambda *what: counts.append(what)) as picwish:
        with pytest.raises(LookupError):
            await create(picwish, tmp_path, witness=Witness(LookupError()))
        await picwish.download("ftp://elsewhere/result", sink=tmp_path / "result")
        asking = asyncio.create_task(picwish.query(TASK, sink=tmp_path / "sink"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert counts == []
