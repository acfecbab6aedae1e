"""``simulate``: the simulator alone."""

import argparse
import asyncio
import sys
from contextlib import suppress

from picwish_watchd.errors import UsageError
from picwish_watchd.simulator import Settings, run_simulator


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted; the URL is the only line on stdout."""
    print(
        "a stand-in for PicWish on this machine: it takes any key, costs nothing, and really enlarges pictures;\n"
        "set `api.base_url` to the address below, and stop it with Ctrl-C",
        file=sys.stderr,
    )
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(run_simulator(Settings(), args.port, lambda url: print(url, flush=True)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"port {args.port} cannot be used: {reason}", hint="give another one with --port") from error
    return 0
