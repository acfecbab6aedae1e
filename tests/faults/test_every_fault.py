"""Every fault of every request, and every documented state of a task: what must come of the picture, and of the money.

Each row of the table is one image. Its faults are bound to it by its hash, so that many rows share one run.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import monotonic, time

import pytest

from picwish_watchd.clock import Clock
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import UNFINISHED, ErrorCode, Job, NewJob, Stamp, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.picwish import Patience, PicwishClient
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.runtime.memory_budget import ByteBudget
from picwish_watchd.scheduling.rate_limiter import Pacer
from picwish_watchd.simulator import (
    HTML_PAGE,
    Cut,
    Drip,
    EndIn,
    Fault,
    Hang,
    Raw,
    Refuse,
    Reply,
    Reset,
    Rewrite,
    Simulator,
)
from picwish_watchd.simulator.faults import Action, Stage
from picwish_watchd.simulator.ledger import Operation
from tests.support.house import FAST, KEY, House
from tests.support.pictures import encode, picture, pixels

pytestmark = pytest.mark.untraced

ONCE, LEAST = "at-most-once", "at-least-once"
CODES = (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504)
_HASTE = 20.0


class HastyClock(Clock):
    """Twenty seconds in one: the daemon's pauses pass quickly, in the same order."""

    def __init__(self) -> None:
        self._wall, self._start = time(), monotonic()

    def now(self) -> float:
        return self._wall + (monotonic() - self._start) * _HASTE

    def monotonic(self) -> float:
        return monotonic() * _HASTE

    def since_boot(self) -> float:
        return self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / _HASTE)


@dataclass(frozen=True)
class End:
    """What must come of an image."""

    state: State
    creates: int = 1
    credits: int = 0
    in_doubt: int = 0
    code: ErrorCode | None = None


DONE = End(State.DONE, credits=5)
AGAIN = replace(DONE, creates=2)  #: the first create cost nothing
UNKNOWN = End(State.HELD, in_doubt=5, code=ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
DOUBLE = End(State.DONE, creates=2, credits=5, in_doubt=5)


@dataclass(frozen=True)
class Row:
    """One image, what befalls it, and its end by `charging`."""

    name: str
    on: Operation
    do: Action
    once: End
    least: End | None = None  #: None: the same
    times: int = 1
    large: bool = False  #: larger than what the sockets buffer, so that the upload itself can be cut short

    def end(self, charging: str) -> End:
        return self.once if charging == ONCE or self.least is None else self.least


def _doubtful(name: str, do: Action) -> Row:
    return Row(name, "create", do, UNKNOWN, DOUBLE)


def creates() -> Iterator[Row]:
    """A POST that fails; what is not provably refused is in doubt."""
    yield Row("reset before the body", "create", Reset(at="head"), AGAIN, large=True)
    yield _doubtful("reset after the body", Reset(at="body"))
    yield _doubtful("accepted and reset", Reset(at="work"))
    yield Row("drip", "create", Drip(2000), DONE)
    yield _doubtful("cut in the head", Cut(after=40))
    yield _doubtful("nothing at all", Cut(after=0))
    yield _doubtful("garbage", Raw())
    yield _doubtful("accepted and garbage", Raw(at="work"))
    yield _doubtful("html", HTML_PAGE)
    yield _doubtful("accepted and html", replace(HTML_PAGE, at="work"))
    yield _doubtful("json that calls itself html", Reply(200, b'{"status": 200}', HTML_PAGE.headers))
    refused = {413: ErrorCode.PAYLOAD_TOO_LARGE, 400: ErrorCode.BAD_REQUEST, 422: ErrorCode.BAD_REQUEST}
    for code in CODES:
        reply = Reply(code, headers={"Retry-After": "0"})
        if code in refused:
            yield Row(f"{code}", "create", reply, End(State.FAILED, code=refused[code]))
        elif code in (500, 502, 504):
            yield _doubtful(f"{code}", reply)
            yield _doubtful(f"accepted and {code}", replace(reply, at="work"))
        else:
            yield Row(f"{code}", "create", reply, AGAIN)


#: API document, "state"; those not listed here are worth another try, -4, -6 and -12 among them, of which nobody knows.
_HOPELESS = (-5, -7, -10, -11, -14, -16, -17)


def states() -> Iterator[Row]:
    """How a task ends; nothing of it is PicWish paid for, so `charging` makes no difference."""
    for state in range(-17, 0):
        if state in _HOPELESS:
            yield Row(f"state {state}", "create", EndIn(state), End(State.FAILED, code=ErrorCode.TASK_FAILED))
        else:
            yield Row(f"state {state}", "create", EndIn(state), AGAIN)
            exhausted = End(State.FAILED, creates=3, code=ErrorCode.ATTEMPTS_EXHAUSTED)
            yield Row(f"state {state} always", "create", EndIn(state), exhausted, times=3)


def endless() -> Iterator[Row]:
    """Tasks that never leave a state: they may still end and be charged, so they are held either way."""
    for state in (0, 2, 3, 4):
        held = End(State.HELD, in_doubt=5, code=ErrorCode.TASK_TIMEOUT)
        yield Row(f"state {state} for ever", "create", EndIn(state), held)


_IMAGE = {"Content-Type": "image/jpeg"}


def _in_state(state: int) -> Rewrite:
    return Rewrite(lambda data: {**data, "state": state, "image": ""})


def _spoilt(on: Operation) -> Iterator[Row]:
    """What costs a query or a download, but no credit."""
    stages: tuple[Stage, ...] = ("head", "body", "work")
    for at in stages:
        yield Row(f"{on} reset at {at}", on, Reset(at=at), DONE)
    yield Row(f"{on} hang at head", on, Hang(at="head"), DONE)
    yield Row(f"{on} hang at work", on, Hang(at="work"), DONE)
    yield Row(f"{on} drip", on, Drip(20_000), DONE)
    yield Row(f"{on} cut", on, Cut(after=60), DONE)
    yield Row(f"{on} cut in the body", on, Cut(after=400), DONE)
    yield Row(f"{on} garbage", on, Raw(), DONE)
    yield Row(f"{on} html", on, HTML_PAGE, DONE)
    yield Row(f"{on} html that calls itself an image", on, replace(HTML_PAGE, headers=_IMAGE), DONE)
    yield Row(f"{on} json that calls itself an image", on, Reply(200, b'{"status": 200}', _IMAGE), DONE)
    for code in CODES:
        yield Row(f"{on} {code}", on, Reply(code, headers={"Retry-After": "0"}), DONE)


def queries() -> Iterator[Row]:
    """A query is free: it is repeated until it tells something."""
    yield from _spoilt("query")
    for state in (0, 2, 3, 4):
        yield Row(f"query in state {state}", "query", _in_state(state), DONE, times=2)
    unknown = End(State.HELD, in_doubt=5, code=ErrorCode.TASK_UNKNOWN)
    yield Row("query 404 and no end", "query", Reply(404), unknown, DOUBLE, times=4)


def downloads() -> Iterator[Row]:
    """A download is free: it is repeated until the result is certainly gone, and that was paid for."""
    yield from _spoilt("download")
    right = Reply(200, picture(seed=1000), HTML_PAGE.headers)
    yield Row("download that calls itself html", "download", right, DONE)
    bought_again = End(State.DONE, creates=2, credits=10)
    for code in (400, 403, 404, 422):
        gone = End(State.HELD, credits=5, code=ErrorCode.RESULT_EXPIRED)
        yield Row(f"download {code} thrice", "download", Reply(code), gone, bought_again, times=3)
    useless = End(State.HELD, credits=5, code=ErrorCode.RESULT_INVALID)
    yield Row("download html thrice", "download", HTML_PAGE, useless, times=3)


TABLES: dict[str, Callable[[], Iterator[Row]]] = {
    "create": creates,
    "states": states,
    "endless": endless,
    "query": queries,
    "download": downloads,
}
#: Rows in one run. Doubt closes the gate for ever longer, so few of them share a run.
_BATCH = {"create": 4, "states": 50, "endless": 4, "query": 14, "download": 8}


def _image(row: Row, number: int) -> bytes:
    return encode(pixels("bmp", 8, 8, seed=number).resize((2700, 2000)), "bmp") if row.large else picture(seed=number)


def _name(row: Row, number: int) -> str:
    return f"{number}.{'bmp' if row.large else 'jpg'}"


async def settle(root: Path, rows: list[Row], charging: str, api: dict[str, object]) -> list[str]:
    """Runs a batch until nothing is queued; answers what is not as it must be."""
    root.mkdir()
    async with Simulator(replace(FAST, enhance="echo")) as simulator:
        house = House(root, simulator, api={"timeout": "1s", **api}, top={"charging": charging})
        for number, row in enumerate(rows):
            sha = house.dropped[house.drop(_name(row, number), _image(row, number))]
            bound = None if row.large else sha
            simulator.script.add(Fault(row.on, row.do, times=row.times, sha256=bound, nth=1 if row.large else None))
            if row.end(charging).creates > 1 and row.end(charging) != AGAIN:
                house.forgiven.add(sha)
        for _ in range(5):  # a refused key ends a run: the next one tries again
            await Daemon(house.config(), KEY, clock=HastyClock()).run(once=True)
            if not house.jobs(*UNFINISHED):
                break
        assert simulator.script.pending == []
        house.check_laws()
        return [wrong for number, row in enumerate(rows) for wrong in judge(house, row, number, row.end(charging))]


def judge(house: House, row: Row, number: int, end: End) -> list[str]:
    job = house.job(_name(row, number))
    asked = sum(seen.operation == "create" and seen.sha256 in (job.sha256, None) for seen in house.simulator.requests)
    came = End(job.state, asked, job.credits, job.credits_in_doubt, job.problem.code if job.problem else None)
    return [] if came == end else [f"{row.name}: {came} instead of {end}; {house.history(_name(row, number))}"]


@pytest.mark.parametrize("charging", [ONCE, LEAST])
@pytest.mark.parametrize("table", TABLES)
async def test_every_fault_ends_as_the_table_says_and_is_paid_once(tmp_path: Path, table: str, charging: str) -> None:
    rows = list(TABLES[table]())
    large = [[row] for row in rows if row.large]
    small = [row for row in rows if not row.large]
    size = _BATCH[table]
    batches = large + [small[start : start + size] for start in range(0, len(small), size)]
    api: dict[str, object] = {"task_timeout": "20s"} if table == "endless" else {}
    async with asyncio.timeout(60):
        wrong = await asyncio.gather(
            *(settle(tmp_path / str(n), batch, charging, api) for n, batch in enumerate(batches))
        )
    assert [line for lines in wrong for line in lines] == []


async def _refused(root: Path, on: Operation, charging: str) -> None:
    root.mkdir()
    async with Simulator(FAST) as simulator:
        house = House(root, simulator, api={"timeout": "1s"}, top={"charging": charging})
        house.drop("a.jpg")
        if on == "create":
            simulator.break_down(refuse=True)
        else:
            simulator.script.add(Fault(on, Refuse(), when=lambda seen: seen.sha256 is not None))
        run = asyncio.create_task(Daemon(house.config(), KEY, clock=HastyClock()).run(once=True))
        while simulator.script.pending or not (house.journal.exists() and house.jobs()):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)  # in which more connections are refused
        await simulator.repair()
        assert await run == 0
        job = house.job("a.jpg")
        assert (job.state, job.credits, job.credits_in_doubt) == (State.DONE, 5, 0)
        assert house.creates() == 1
        house.check_laws()


@pytest.mark.parametrize("charging", [ONCE, LEAST])
async def test_a_refused_connection_costs_nothing(tmp_path: Path, charging: str) -> None:
    operations: tuple[Operation, ...] = ("create", "query", "download")
    async with asyncio.timeout(30):
        await asyncio.gather(*(_refused(tmp_path / on, on, charging) for on in operations))


async def _post(house: House) -> Job:
    """One POST by a client that does not wait for two minutes."""
    config = house.config()
    source = house.drop("a.jpg")
    found = source.stat()
    spool = Spool(spool_folder(config.journal))
    (house.root / "state").mkdir()
    journal = Journal.open_for_writing(config.journal, Clock())
    spool.prepare()
    for rule in config.rules:
        journal.remember_rule(rule.name, rule.to_json())
    stamp = Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
    new = NewJob("scans", source, Path("a.jpg"), stamp, sha256=house.dropped[source], format="jpeg")
    job_id = journal.add([new])[0]
    patience = Patience(answer=0.25, sync_answer=0.25)
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=0.25, patience=patience) as client:
        context = Context(config=config, journal=journal, spool=spool, clock=Clock(), client=client)
        pacer = Pacer(config.api.qps, context.clock)
        gate = Gate(context, pacer=pacer)
        collect = Collect(context, gate=gate, pacer=pacer)
        submit = Submit(context, gate=gate, pacer=pacer, budget=ByteBudget(10**6), collect=collect)
        granting = asyncio.create_task(pacer.run())
        job = submit.choose()
        assert job is not None
        await submit.submit(job)
        granting.cancel()
        context.close()
    after = journal.get(job_id)
    journal.close()
    assert after is not None
    return after


async def _silent(root: Path, at: Stage, sync: int, charging: str) -> None:
    root.mkdir()
    async with Simulator(FAST) as simulator:
        house = House(root, simulator, top={"charging": charging}, rule={"sync": sync})
        simulator.script.add(Fault("create", Hang(at=at)))
        job = await _post(house)
        assert (job.credits, job.credits_in_doubt, house.creates()) == (0, 5, 1)
        if charging == ONCE:
            assert job.problem is not None
            assert (job.state, job.problem.code) == (State.HELD, ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
        else:
            assert (job.state, job.task_id) == (State.QUEUED, None)
        house.check_laws()


@pytest.mark.parametrize("charging", [ONCE, LEAST])
async def test_a_post_that_is_met_with_silence_is_in_doubt(tmp_path: Path, charging: str) -> None:
    stages: tuple[Stage, ...] = ("head", "body", "work")
    ways = product(stages, (0, 1))
    async with asyncio.timeout(30):
        await asyncio.gather(*(_silent(tmp_path / f"{at}{sync}", at, sync, charging) for at, sync in ways))
