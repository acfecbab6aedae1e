"""Random orders of events: images arrive, steps run one at a time, and the program crashes between any two commits.

The journal, the folders, the steps and the HTTP are real; PicWish is the simulator, with a random outcome for each
request. Run more examples with ``python -m tests.faults.test_state_machine --examples 1000 --steps 60``.
"""

import argparse
import asyncio
import hashlib
import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from PIL import Image

from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.job import ALLOWED_TRANSITIONS, UNFINISHED, UNSUCCESSFUL, Job, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.deliver import Deliver
from picwish_watchd.pipeline.dispose import Dispose
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.intake import Intake
from picwish_watchd.pipeline.recover import recover
from picwish_watchd.pipeline.retry import RetryAction, retry_jobs
from picwish_watchd.scheduling.rate_limiter import RateLimiter, RequestKind
from picwish_watchd.simulator import CutResponse, EndIn, Fault, Reply, Reset, Settings, Simulator, TruncateBody
from picwish_watchd.simulator.faults import Action
from tests.support.api_steps import make_api_steps
from tests.support.fake_clock import FakeClock
from tests.support.harness import KEY, Harness
from tests.support.sample_images import make_image

pytestmark = pytest.mark.untraced

_SHM = Path("/dev/shm")

#: Faults of a paid POST. The first four leave a task at PicWish.
CREATE_FAULTS: dict[str, Action | None] = {
    "accepted": None,
    "accepted, fails": EndIn(-1),
    "accepted, hopeless": EndIn(-7),
    "accepted, lost": Reset(at="work"),
    "accepted, 500": Reply(500, at="work"),
    "accepted, cut": CutResponse(after=40),
    "400": Reply(400),
    "401": Reply(401),
    "429": Reply(429),
    "503": Reply(503),
    "reset": Reset(at="head"),
}
QUERY_FAULTS: dict[str, Action | None] = {"well": None, "500": Reply(500), "429": Reply(429), "lost": Reset(at="work")}
DOWNLOAD_FAULTS: dict[str, Action | None] = {
    "well": None,
    "expired": Reply(403),
    "half": TruncateBody(keep=300),
    "lost": Reset(),
}
#: Values for `CrashingJournal.crash_point`; four of ten do not crash.
CRASH_POINTS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6)


class SimulatedCrashError(BaseException):
    """Raised in place of a crash of the program, whose code must not continue."""


class CrashingJournal(Journal):
    """A journal that crashes before (odd numbers) or after (even numbers) a commit; 1 and 2 are for the next commit."""

    #: The number 0 means no crash.
    crash_point = 0

    @contextmanager
    def _transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Cursor]:
        point, self.crash_point = self.crash_point, max(0, self.crash_point - 2)
        with super()._transaction(synced=synced) as cursor:
            yield cursor
            if point == 1:
                raise SimulatedCrashError
        if point == 2:
            raise SimulatedCrashError


class ProgramRun:
    """All that the program has in memory between its start and a crash."""

    def __init__(self, harness: Harness, clock: FakeClock) -> None:
        config = harness.load_config()
        self.journal = CrashingJournal.open_for_writing(config.journal, clock)
        spool = Spool(spool_folder(config.journal))
        spool.ensure_folder()
        self.client = PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5)
        self.context = StepContext(config=config, journal=self.journal, spool=spool, clock=clock, client=self.client)
        self.rule = config.rules[0]
        self.journal.save_rule_settings(self.rule.name, self.rule.to_json())
        self.rate_limiter = rate_limiter = RateLimiter(config.api.qps, clock)
        self.permits = asyncio.get_running_loop().create_task(rate_limiter.run())
        self.gate = Gate(self.context, rate_limiter=rate_limiter)
        steps = make_api_steps(self.context, self.gate, rate_limiter)
        self.submit, self.collect, self.tracker = steps.submit, steps.collect, steps.tracker
        self.intake = Intake(self.context, self.rule)
        self.deliver = Deliver(self.context)
        self.dispose = Dispose(self.context, rescan_source=lambda _job: None)
        recover(self.context)

    async def crash(self) -> None:
        """Drop the program's memory and leave the files as they are, with the WAL beside the journal."""
        self.permits.cancel()
        await self.client.aclose()
        self.context.close()
        path = self.journal.path
        files = {name: Path(name).read_bytes() for name in (f"{path}", f"{path}-wal") if os.path.exists(name)}
        # Closing writes the WAL into the journal, which a crash does not.
        self.journal._connection.close()
        self.journal._lock.close()
        for name, data in files.items():
            Path(name).write_bytes(data)


class PipelineMachine(RuleBasedStateMachine):
    """One harness with one run of the program after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        shm = _SHM if os.access(_SHM, os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(prefix="picwish-machine-", dir=shm)
        self.clock = FakeClock()
        # PicWish's own clock, which only the rule `let_tasks_progress` advances.
        self.service = FakeClock()
        self.simulator = Simulator(Settings(qps=None, processing=(1.0, 0.0), enlarge=1.5, clock=self.service))
        self.allowed: Counter[str] = Counter()
        # File name -> SHA-256.
        self.names: dict[str, str] = {}

    @initialize(seed=st.integers(0, 2**16))
    def create_harness(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.runner.run(self.simulator.start())
        root = Path(self.folder.name)
        self.harness = Harness(root, self.simulator)
        self.harness.rule = {"on_success": "move", "archive": "archive", "on_failure": "move", "failed": "failed"}
        self.harness.top_level = {"min_free": 1, "max_attempts": 2}
        self.current_run()

    def teardown(self) -> None:
        try:
            if hasattr(self, "life"):
                self.finish_and_check()
        finally:
            if hasattr(self, "life"):
                self.runner.run(self.program_run.crash())
            self.runner.run(self.simulator.stop())
            self.runner.close()
            self.folder.cleanup()

    # The events.

    @precondition(lambda self: len(self.names) < 8)
    @rule(copy=st.booleans(), index=st.integers(0, 9), crash_point=st.sampled_from(CRASH_POINTS))
    def drop(self, copy: bool, index: int, crash_point: int) -> None:
        """Drop a new image, or a copy of an earlier one."""
        seeds = len(set(self.names.values()))
        seed = index % seeds if copy and seeds else seeds
        name = f"{len(self.names)}.jpg"
        data = make_image("jpeg", 24, 16, seed=seed)
        self.harness.drop_file(name, data)
        self.names[name] = hashlib.sha256(data).hexdigest()
        self.run_step(self._take_in, crash_point)

    @precondition(lambda self: self.has_jobs(State.QUEUED))
    @rule(outcome=st.sampled_from(["accepted"] * 9 + list(CREATE_FAULTS)), crash_point=st.sampled_from(CRASH_POINTS))
    def submit_next(self, outcome: str, crash_point: int) -> None:
        self.add_fault("create", CREATE_FAULTS[outcome])
        self.run_step(self._submit, crash_point)

    @precondition(lambda self: self.has_jobs(State.PENDING))
    @rule(
        query=st.sampled_from(["well"] * 6 + list(QUERY_FAULTS)),
        download=st.sampled_from(["well"] * 6 + list(DOWNLOAD_FAULTS)),
        soon=st.sampled_from((True, True, True, False)),
        crash_point=st.sampled_from(CRASH_POINTS),
    )
    def query_task(self, query: str, download: str, soon: bool, crash_point: int) -> None:
        if soon:
            self.let_tasks_progress(2.0)
        self.add_fault("query", QUERY_FAULTS[query])
        self.add_fault("download", DOWNLOAD_FAULTS[download])
        self.run_step(self._query, crash_point)

    @precondition(lambda self: self.has_jobs(State.DELIVERING))
    @rule(crash_point=st.sampled_from(CRASH_POINTS))
    def deliver_next(self, crash_point: int) -> None:
        self.run_step(self._deliver, crash_point)

    @precondition(lambda self: self.program_run.journal.count_waiting_originals() > 0)
    @rule(crash_point=st.sampled_from(CRASH_POINTS))
    def dispose_next(self, crash_point: int) -> None:
        self.run_step(self._dispose, crash_point)

    @precondition(lambda self: self.has_jobs(State.PENDING))
    @rule()
    def let_results_expire(self) -> None:
        """Let PicWish forget its results."""
        self.let_tasks_progress(4000.0)

    def let_tasks_progress(self, seconds: float) -> None:
        """Let PicWish process its tasks."""
        self.runner.run(self.simulator.wait_until_rendered())
        self.service.advance(seconds)

    @precondition(lambda self: self.away_outbox.exists() or (self.outbox.exists() and self.has_jobs(State.DELIVERING)))
    @rule()
    def mount_or_unmount(self) -> None:
        current, target = (self.outbox, self.away_outbox) if self.outbox.exists() else (self.away_outbox, self.outbox)
        current.rename(target)

    @rule()
    def crash(self) -> None:
        self.runner.run(self.program_run.crash())
        self.current_run()

    @precondition(lambda self: self.has_jobs(*UNSUCCESSFUL))
    @rule(index=st.integers(0, 9))
    def retry_job(self, index: int) -> None:
        jobs = self.jobs(*UNSUCCESSFUL)
        job = jobs[index % len(jobs)]
        for one in retry_jobs(self.program_run.journal, self.program_run.context.spool, [job]):
            if one.action in (RetryAction.SUBMIT, RetryAction.QUERY):
                assert one.job.sha256 is not None
                self.allowed[one.job.sha256] += 1

    # The invariants.

    @invariant()
    def no_picture_is_paid_twice_unless_a_person_said_so(self) -> None:
        paid = Counter(charge.sha256 for charge in self.simulator.ledger)
        for sha, times in paid.items():
            assert times <= 1 + self.allowed[sha], f"paid {times} times"

    @invariant()
    def the_ledger_knows_every_credit(self) -> None:
        if not hasattr(self, "life"):
            return
        rows = list(self.program_run.journal.iter_spending())
        assert all(row.credits > 0 for row in rows)
        known = sum(row.credits for row in rows)
        spent = sum(job.credits for job in self.jobs())
        doubtful = sum(job.credits_in_doubt for job in self.jobs())
        assert doubtful == sum(row.credits for row in rows if row.is_in_doubt)
        assert 0 <= spent <= self.simulator.credits_used <= known

    @invariant()
    def every_original_is_in_exactly_one_place(self) -> None:
        for name, sha in self.names.items():
            paths = [self.harness.root / folder / name for folder in ("inbox", "archive", "failed")]
            existing = [path for path in paths if path.exists()]
            assert len(existing) == 1, f"{name} is in {existing}"
            assert hashlib.sha256(existing[0].read_bytes()).hexdigest() == sha

    @invariant()
    def every_move_was_legal(self) -> None:
        for job in self.jobs():
            states = [event.state for event in self.program_run.journal.history(job.id)]
            assert states[0] is State.QUEUED
            assert states[-1] is job.state
            for before, after in pairwise(states):
                assert after is before or after in ALLOWED_TRANSITIONS[before]

    @invariant()
    def nothing_partial_bears_a_final_name(self) -> None:
        results = {job.result.sha256 for job in self.jobs() if job.result is not None}
        for folder in (self.outbox, self.away_outbox):
            for path in folder.rglob("*.jpg"):
                if not path.name.startswith("."):
                    assert hashlib.sha256(path.read_bytes()).hexdigest() in results
                    with Image.open(path) as image:
                        image.load()
        for job in self.jobs(State.DONE):
            assert job.output is not None
            assert job.output.exists() or (self.away_outbox / job.output.name).exists()

    # Parts of the events.

    @property
    def outbox(self) -> Path:
        return self.harness.outbox

    @property
    def away_outbox(self) -> Path:
        return self.harness.root / "away"

    def jobs(self, *states: State) -> list[Job]:
        return self.program_run.journal.jobs(states=states, oldest_first=True) if hasattr(self, "life") else []

    def has_jobs(self, *states: State) -> bool:
        return bool(self.jobs(*states))

    def add_fault(self, operation: str, action: Action | None) -> None:
        if action is not None:
            when = None if operation != "query" else _is_task_request
            self.simulator.script.add(Fault(operation, action, when=when))  # type: ignore[arg-type]

    def run_step(self, step: Callable[[], Awaitable[None]], crash_point: int = 0) -> None:
        """Run one step, which may crash the program."""

        async def taken() -> None:
            await step()

        self.program_run.journal.crash_point = crash_point
        try:
            self.runner.run(taken())
        except SimulatedCrashError:
            self.crash()
        self.program_run.journal.crash_point = 0
        self.simulator.script.clear()

    def current_run(self) -> None:
        async def born() -> ProgramRun:
            return ProgramRun(self.harness, self.clock)

        self.program_run = self.runner.run(born())
        keep = {job.id for job in self.jobs(State.DELIVERING, State.HELD, State.FAILED) if job.result is not None}
        assert {path.name for path in self.program_run.context.spool.folder.iterdir()} <= {
            f"{id}.result" for id in keep
        }
        assert not self.has_jobs(State.SUBMITTING, State.FETCHING)

    async def _take_in(self) -> None:
        known = dict(self.program_run.journal.known_files(self.program_run.rule.name))
        files = {path.name: stamp_of(path.stat()) for path in self.harness.inbox.iterdir()}
        self.program_run.intake.record_sightings(
            [FileSeen(name, stamp) for name, stamp in files.items() if known.get(name) != stamp]
        )
        await self.program_run.intake.process_due_files()

    async def _submit(self) -> None:
        run = self.program_run
        self.clock.advance(400)
        if not run.gate.can_submit():
            await run.gate.probe()
        job = run.submit.choose_job()
        if job is not None:
            run.gate.begin_attempt(job.id)
            await run.submit.submit(job)

    async def _query(self) -> None:
        self.clock.advance(60)
        self.program_run.tracker.adopt_running_tasks()
        job = self.program_run.tracker.choose_due_task()
        if job is not None:
            await self.program_run.collect.query_task(
                job, await self.program_run.rate_limiter.acquire(RequestKind.QUERY)
            )

    async def _deliver(self) -> None:
        self.clock.advance(20)
        job = self.program_run.journal.next_ready_job(
            self.program_run.rule.name, self.clock.now(), state=State.DELIVERING
        )
        if job is not None:
            await self.program_run.deliver.deliver(job)

    async def _dispose(self) -> None:
        self.clock.advance(100)
        job = self.program_run.journal.next_waiting_original(self.program_run.rule.name, self.clock.now())
        if job is not None:
            await self.program_run.dispose.dispose(job)

    def finish_and_check(self) -> None:
        """Finish all jobs, with some more crashes, and check the laws."""
        if self.away_outbox.exists():
            self.mount_or_unmount()
        self.run_step(self._take_in)
        for attempts_left in reversed(range(60)):
            if not self.has_jobs(*UNFINISHED):
                break
            for step in (self._submit, self._query, self._deliver, self._dispose):
                self.let_tasks_progress(2.0)
                self.run_step(step, self.chance.choice(CRASH_POINTS) if attempts_left > 50 else 0)
        assert not self.has_jobs(*UNFINISHED), self.jobs(*UNFINISHED)
        assert {str(job.relative) for job in self.jobs()} == set(self.names)
        assert set(self.outbox.rglob("*.*")) == {job.output for job in self.jobs(State.DONE)}
        for _ in self.names:
            self.run_step(self._dispose)
        for check in (
            self.no_picture_is_paid_twice_unless_a_person_said_so,
            self.the_ledger_knows_every_credit,
            self.every_original_is_in_exactly_one_place,
            self.every_move_was_legal,
            self.nothing_partial_bears_a_final_name,
        ):
            check()


def _is_task_request(request: object) -> bool:
    return not getattr(request, "path", "").endswith("0" * 12)


def run_state_machine(examples: int, steps: int, *, derandomize: bool) -> None:
    """Run the state machine with these settings."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    try:
        run_machine(PipelineMachine, settings=chosen)
    finally:
        structlog.configure(**before)


# Shrinking a failing example takes minutes.
@pytest.mark.timeout(400)
def test_no_order_of_events_pays_twice_or_loses_an_image() -> None:
    run_state_machine(15, 40, derandomize=True)


def main() -> None:
    """Start a long run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()
    run_state_machine(args.examples, args.steps, derandomize=False)
    print(f"{args.examples} stories of up to {args.steps} steps")


if __name__ == "__main__":
    main()
