"""Every fault of every request and every documented task state, with the outcome for the image and the credits.

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
from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.job import UNFINISHED, ErrorCode, Job, NewJob, State
from picwish_watchd.picwish import RequestTimeouts
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.simulator import (
    HTML_PAGE,
    CutResponse,
    Drip,
    EndIn,
    Fault,
    Hang,
    RefuseConnections,
    Reply,
    Reset,
    Rewrite,
    SendRaw,
    Simulator,
)
from picwish_watchd.simulator.faults import Action, Stage
from picwish_watchd.simulator.ledger import Operation
from tests.support.api_steps import make_api_steps
from tests.support.harness import FAST_SETTINGS, KEY, Harness
from tests.support.sample_images import draw_image, encode_image, make_image
from tests.support.step_context import open_step_context

pytestmark = pytest.mark.untraced

ONCE, LEAST = "at-most-once", "at-least-once"
CODES = (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504)
_SPEED = 20.0


class FastClock(Clock):
    """A clock that runs twenty times as fast, so that the daemon's pauses end soon and in the same order."""

    def __init__(self) -> None:
        self._wall, self._start = time(), monotonic()

    def now(self) -> float:
        return self._wall + (monotonic() - self._start) * _SPEED

    def monotonic(self) -> float:
        return monotonic() * _SPEED

    def since_boot(self) -> float:
        return self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / _SPEED)


@dataclass(frozen=True)
class ExpectedOutcome:
    """The required outcome of an image."""

    state: State
    creates: int = 1
    credits: int = 0
    in_doubt: int = 0
    code: ErrorCode | None = None


DELIVERED = ExpectedOutcome(State.DONE, credits=5)
#: The first create cost nothing.
RESENT = replace(DELIVERED, creates=2)
HELD_IN_DOUBT = ExpectedOutcome(State.HELD, in_doubt=5, code=ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
RESENT_IN_DOUBT = ExpectedOutcome(State.DONE, creates=2, credits=5, in_doubt=5)


@dataclass(frozen=True)
class FaultCase:
    """One image, its faults, and the required outcome for each `charging` mode."""

    name: str
    operation: Operation
    action: Action
    at_most_once: ExpectedOutcome
    #: None means the outcome for `at_most_once`.
    at_least_once: ExpectedOutcome | None = None
    times: int = 1
    #: Larger than the socket buffers, so that the upload itself can be cut short.
    large: bool = False

    def expected_outcome(self, charging: str) -> ExpectedOutcome:
        return self.at_most_once if charging == ONCE or self.at_least_once is None else self.at_least_once


def _doubtful_case(name: str, do: Action) -> FaultCase:
    return FaultCase(name, "create", do, HELD_IN_DOUBT, RESENT_IN_DOUBT)


def create_cases() -> Iterator[FaultCase]:
    """Return failures of the POST; all that are not provably refused leave the job in doubt."""
    yield FaultCase("reset before the body", "create", Reset(at="head"), RESENT, large=True)
    yield _doubtful_case("reset after the body", Reset(at="body"))
    yield _doubtful_case("accepted and reset", Reset(at="work"))
    yield FaultCase("drip", "create", Drip(2000), DELIVERED)
    yield _doubtful_case("cut in the head", CutResponse(after=40))
    yield _doubtful_case("nothing at all", CutResponse(after=0))
    yield _doubtful_case("garbage", SendRaw())
    yield _doubtful_case("accepted and garbage", SendRaw(at="work"))
    yield _doubtful_case("html", HTML_PAGE)
    yield _doubtful_case("accepted and html", replace(HTML_PAGE, at="work"))
    yield _doubtful_case("json that calls itself html", Reply(200, b'{"status": 200}', HTML_PAGE.headers))
    refused = {413: ErrorCode.PAYLOAD_TOO_LARGE, 400: ErrorCode.BAD_REQUEST, 422: ErrorCode.BAD_REQUEST}
    for code in CODES:
        reply = Reply(code, headers={"Retry-After": "0"})
        if code in refused:
            yield FaultCase(f"{code}", "create", reply, ExpectedOutcome(State.FAILED, code=refused[code]))
        elif code in (500, 502, 504):
            yield _doubtful_case(f"{code}", reply)
            yield _doubtful_case(f"accepted and {code}", replace(reply, at="work"))
        else:
            yield FaultCase(f"{code}", "create", reply, RESENT)


#: The "state" values in the API document. Those not listed are tried again, among them the unexplained -4, -6 and -12.
_PERMANENT_FAILURES = (-5, -7, -10, -11, -14, -16, -17)


def task_state_cases() -> Iterator[FaultCase]:
    """Return final states of a task. PicWish charges for none of the failures, so `charging` makes no difference."""
    for state in range(-17, 0):
        if state in _PERMANENT_FAILURES:
            yield FaultCase(
                f"state {state}", "create", EndIn(state), ExpectedOutcome(State.FAILED, code=ErrorCode.TASK_FAILED)
            )
        else:
            yield FaultCase(f"state {state}", "create", EndIn(state), RESENT)
            exhausted = ExpectedOutcome(State.FAILED, creates=3, code=ErrorCode.ATTEMPTS_EXHAUSTED)
            yield FaultCase(f"state {state} always", "create", EndIn(state), exhausted, times=3)


def endless_task_cases() -> Iterator[FaultCase]:
    """Return tasks that never end: they may still be charged, so they are held in either `charging` mode."""
    for state in (0, 2, 3, 4):
        held = ExpectedOutcome(State.HELD, in_doubt=5, code=ErrorCode.TASK_TIMEOUT)
        yield FaultCase(f"state {state} for ever", "create", EndIn(state), held)


_IMAGE_HEADERS = {"Content-Type": "image/jpeg"}


def _reply_in_state(state: int) -> Rewrite:
    return Rewrite(lambda data: {**data, "state": state, "image": ""})


def _transport_fault_cases(on: Operation) -> Iterator[FaultCase]:
    """Return faults of a query or a download; these requests are free."""
    stages: tuple[Stage, ...] = ("head", "body", "work")
    for at in stages:
        yield FaultCase(f"{on} reset at {at}", on, Reset(at=at), DELIVERED)
    yield FaultCase(f"{on} hang at head", on, Hang(at="head"), DELIVERED)
    yield FaultCase(f"{on} hang at work", on, Hang(at="work"), DELIVERED)
    yield FaultCase(f"{on} drip", on, Drip(20_000), DELIVERED)
    yield FaultCase(f"{on} cut", on, CutResponse(after=60), DELIVERED)
    yield FaultCase(f"{on} cut in the body", on, CutResponse(after=400), DELIVERED)
    yield FaultCase(f"{on} garbage", on, SendRaw(), DELIVERED)
    yield FaultCase(f"{on} html", on, HTML_PAGE, DELIVERED)
    yield FaultCase(f"{on} html that calls itself an image", on, replace(HTML_PAGE, headers=_IMAGE_HEADERS), DELIVERED)
    yield FaultCase(
        f"{on} json that calls itself an image", on, Reply(200, b'{"status": 200}', _IMAGE_HEADERS), DELIVERED
    )
    for code in CODES:
        yield FaultCase(f"{on} {code}", on, Reply(code, headers={"Retry-After": "0"}), DELIVERED)


def query_cases() -> Iterator[FaultCase]:
    """Return faults of a query, which is free and repeated until it has a clear result."""
    yield from _transport_fault_cases("query")
    for state in (0, 2, 3, 4):
        yield FaultCase(f"query in state {state}", "query", _reply_in_state(state), DELIVERED, times=2)
    unknown = ExpectedOutcome(State.HELD, in_doubt=5, code=ErrorCode.TASK_UNKNOWN)
    yield FaultCase("query 404 and no end", "query", Reply(404), unknown, RESENT_IN_DOUBT, times=4)


def download_cases() -> Iterator[FaultCase]:
    """Return faults of a download, which is free and repeated until the paid result is certainly gone."""
    yield from _transport_fault_cases("download")
    right = Reply(200, make_image(seed=1000), HTML_PAGE.headers)
    yield FaultCase("download that calls itself html", "download", right, DELIVERED)
    bought_again = ExpectedOutcome(State.DONE, creates=2, credits=10)
    for code in (400, 403, 404, 422):
        gone = ExpectedOutcome(State.HELD, credits=5, code=ErrorCode.RESULT_EXPIRED)
        yield FaultCase(f"download {code} thrice", "download", Reply(code), gone, bought_again, times=3)
    useless = ExpectedOutcome(State.HELD, credits=5, code=ErrorCode.RESULT_INVALID)
    yield FaultCase("download html thrice", "download", HTML_PAGE, useless, times=3)


TABLES: dict[str, Callable[[], Iterator[FaultCase]]] = {
    "create": create_cases,
    "states": task_state_cases,
    "endless": endless_task_cases,
    "query": query_cases,
    "download": download_cases,
}
#: Rows in one run. Each doubt keeps the gate closed for longer than the last, so few of these rows share a run.
_BATCH_SIZES = {"create": 4, "states": 50, "endless": 4, "query": 14, "download": 8}


def _make_image(row: FaultCase, number: int) -> bytes:
    return (
        encode_image(draw_image("bmp", 8, 8, seed=number).resize((2700, 2000)), "bmp")
        if row.large
        else make_image(seed=number)
    )


def _file_name(row: FaultCase, number: int) -> str:
    return f"{number}.{'bmp' if row.large else 'jpg'}"


async def run_batch(root: Path, rows: list[FaultCase], charging: str, api: dict[str, object]) -> list[str]:
    """Run a batch until nothing is queued; return row name -> mismatch."""
    root.mkdir()
    async with Simulator(replace(FAST_SETTINGS, enhance="echo")) as simulator:
        harness = Harness(root, simulator, api={"timeout": "1s", **api}, top_level={"charging": charging})
        for number, row in enumerate(rows):
            sha = harness.dropped[harness.drop_file(_file_name(row, number), _make_image(row, number))]
            bound = None if row.large else sha
            simulator.script.add(
                Fault(row.operation, row.action, times=row.times, sha256=bound, nth=1 if row.large else None)
            )
            if row.expected_outcome(charging).creates > 1 and row.expected_outcome(charging) != RESENT:
                harness.may_be_paid_twice.add(sha)
        # A refused key ends a run, and the next run tries again.
        for _ in range(5):
            await Daemon(harness.load_config(), KEY, clock=FastClock()).run(once=True)
            if not harness.jobs(*UNFINISHED):
                break
        assert simulator.script.pending == []
        harness.check_laws()
        return [
            wrong
            for number, row in enumerate(rows)
            for wrong in check_outcome(harness, row, number, row.expected_outcome(charging))
        ]


def check_outcome(harness: Harness, row: FaultCase, number: int, end: ExpectedOutcome) -> list[str]:
    job = harness.job(_file_name(row, number))
    creates = sum(
        request.operation == "create" and request.sha256 in (job.sha256, None) for request in harness.simulator.requests
    )
    came = ExpectedOutcome(
        job.state, creates, job.credits, job.credits_in_doubt, job.problem.code if job.problem else None
    )
    return (
        []
        if came == end
        else [f"{row.name}: {came} instead of {end}; {harness.state_history(_file_name(row, number))}"]
    )


@pytest.mark.parametrize("charging", [ONCE, LEAST])
@pytest.mark.parametrize("table", TABLES)
async def test_every_fault_ends_as_the_table_says_and_is_paid_once(tmp_path: Path, table: str, charging: str) -> None:
    rows = list(TABLES[table]())
    large = [[row] for row in rows if row.large]
    small = [row for row in rows if not row.large]
    size = _BATCH_SIZES[table]
    batches = large + [small[start : start + size] for start in range(0, len(small), size)]
    api: dict[str, object] = {"task_timeout": "20s"} if table == "endless" else {}
    async with asyncio.timeout(60):
        wrong = await asyncio.gather(
            *(run_batch(tmp_path / str(n), batch, charging, api) for n, batch in enumerate(batches))
        )
    assert [line for lines in wrong for line in lines] == []


async def _run_with_refused_connection(root: Path, on: Operation, charging: str) -> None:
    root.mkdir()
    async with Simulator(FAST_SETTINGS) as simulator:
        harness = Harness(root, simulator, api={"timeout": "1s"}, top_level={"charging": charging})
        harness.drop_file("a.jpg")
        if on == "create":
            simulator.break_down(refuse=True)
        else:
            simulator.script.add(Fault(on, RefuseConnections(), when=lambda request: request.sha256 is not None))
        run = asyncio.create_task(Daemon(harness.load_config(), KEY, clock=FastClock()).run(once=True))
        while simulator.script.pending or not (harness.journal.exists() and harness.jobs()):
            await asyncio.sleep(0.02)
        # More connections are refused in this time.
        await asyncio.sleep(0.2)
        await simulator.repair()
        assert await run == 0
        job = harness.job("a.jpg")
        assert (job.state, job.credits, job.credits_in_doubt) == (State.DONE, 5, 0)
        assert harness.count_creates() == 1
        harness.check_laws()


@pytest.mark.parametrize("charging", [ONCE, LEAST])
async def test_a_refused_connection_costs_nothing(tmp_path: Path, charging: str) -> None:
    operations: tuple[Operation, ...] = ("create", "query", "download")
    async with asyncio.timeout(30):
        await asyncio.gather(*(_run_with_refused_connection(tmp_path / on, on, charging) for on in operations))


async def _post_once(harness: Harness) -> Job:
    """Send one POST with a client that gives up after 0.25 s, and return the job."""
    config = harness.load_config()
    source = harness.drop_file("a.jpg")
    stamp = stamp_of(source.stat())
    new = NewJob("scans", source, Path("a.jpg"), stamp, sha256=harness.dropped[source], format="jpeg")
    request_timeouts = RequestTimeouts(create_silence=0.25, sync_create_silence=0.25)
    async with open_step_context(config, timeout=0.25, request_timeouts=request_timeouts) as context:
        context.journal.add_jobs([new])
        rate_limiter = RateLimiter(config.api.qps, context.clock)
        gate = Gate(context, rate_limiter=rate_limiter)
        submit = make_api_steps(context, gate, rate_limiter).submit
        permits = asyncio.create_task(rate_limiter.run())
        job = submit.choose_job()
        assert job is not None
        await submit.submit(job)
        permits.cancel()
    return harness.job("a.jpg")


async def _run_with_silence(root: Path, at: Stage, sync: int, charging: str) -> None:
    root.mkdir()
    async with Simulator(FAST_SETTINGS) as simulator:
        harness = Harness(root, simulator, top_level={"charging": charging}, rule={"sync": sync})
        simulator.script.add(Fault("create", Hang(at=at)))
        job = await _post_once(harness)
        assert (job.credits, job.credits_in_doubt, harness.count_creates()) == (0, 5, 1)
        if charging == ONCE:
            assert job.problem is not None
            assert (job.state, job.problem.code) == (State.HELD, ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
        else:
            assert (job.state, job.task_id) == (State.QUEUED, None)
        harness.check_laws()


@pytest.mark.parametrize("charging", [ONCE, LEAST])
async def test_a_post_without_an_answer_is_in_doubt(tmp_path: Path, charging: str) -> None:
    stages: tuple[Stage, ...] = ("head", "body", "work")
    variants = product(stages, (0, 1))
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(_run_with_silence(tmp_path / f"{at}{sync}", at, sync, charging) for at, sync in variants)
        )
