"""The parts that the pipeline's steps share, as the daemon assembles them, with nothing running."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.picwish import PicwishClient, RequestTimeouts
from picwish_watchd.pipeline.context import StepContext
from tests.support.harness import KEY


@asynccontextmanager
async def open_step_context(
    config: Config,
    clock: Clock | None = None,
    *,
    timeout: float = 5.0,
    request_timeouts: RequestTimeouts | None = None,
) -> AsyncIterator[StepContext]:
    """Open the journal, spool and client of a configuration and save its rules; close them after the block.

    ``timeout`` (seconds) and ``request_timeouts`` are the client's. Without a clock the real one is used.
    """
    clock, request_timeouts = clock or Clock(), request_timeouts or RequestTimeouts()
    journal = Journal.open_for_writing(config.journal, clock)
    spool = Spool(spool_folder(config.journal))
    spool.ensure_folder()
    for rule in config.rules:
        journal.save_rule_settings(rule.name, rule.to_json())
    async with PicwishClient(
        base_url=config.api.base_url, key=KEY, timeout=timeout, request_timeouts=request_timeouts
    ) as client:
        context = StepContext(config=config, journal=journal, spool=spool, clock=clock, client=client)
        try:
            yield context
        finally:
            context.close()
            journal.close()
