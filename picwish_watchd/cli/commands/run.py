"""``run``: run the daemon in the foreground. ``run --once``: process everything in the inboxes, then exit."""

import argparse
import asyncio
import gc
import os
import sys

import structlog

from picwish_watchd.cli.loading import resolve_config_and_key
from picwish_watchd.cli.progress import ProgressReporter, cancel_and_wait
from picwish_watchd.config.model import Config
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.log.setup import configure_logging, drain_logs


def run(args: argparse.Namespace) -> int:
    """Run until stopped, or with ``--once`` until everything is processed; return the exit code."""
    config, key = resolve_config_and_key(args)
    progress = ProgressReporter(sys.stderr) if args.once else None
    stream = sys.stderr if progress is None else progress.stream
    configure_logging(config.log.level, config.log.format, stream)
    for warning in config.warnings:
        structlog.get_logger().warning("config.warning", reason=warning)

    def reload() -> tuple[Config, str]:
        fresh, fresh_key = resolve_config_and_key(args)
        configure_logging(fresh.log.level, fresh.log.format, stream)
        return fresh, fresh_key

    daemon = Daemon(config, key, reload=reload)
    # Imported objects stay for ever: exclude them from garbage collection.
    gc.freeze()
    code = _run_to_end(daemon, progress)
    if daemon.has_stuck_threads:
        # A thread waits in the kernel for a dead mount; the interpreter would wait for the thread.
        drain_logs()
        sys.stdout.flush()
        os._exit(code)
    return code


def _run_to_end(daemon: Daemon, progress: ProgressReporter | None) -> int:
    """Run the daemon until it ends; return its exit code."""
    code: int | None = None

    async def serve() -> None:
        nonlocal code
        code = await _run_daemon(daemon, progress)

    try:
        asyncio.run(serve())
    except RuntimeError:
        # To join its threads, asyncio starts one more, which the system may refuse. The work is done all the same.
        if code is None:
            raise
    assert code is not None
    return code


async def _run_daemon(daemon: Daemon, progress: ProgressReporter | None) -> int:
    if progress is None:
        return await daemon.run()
    follower = asyncio.create_task(progress.follow(daemon))
    try:
        return await daemon.run(once=True)
    finally:
        await cancel_and_wait(follower)
