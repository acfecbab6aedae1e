"""``simulate``: run the simulator alone."""

import argparse
import asyncio
import sys
from contextlib import suppress

from picwish_watchd.errors import UsageError
from picwish_watchd.simulator import Settings, run_simulator


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted. The URL is the only line on stdout."""
    print(
        "A simulator replaces PicWish on this machine. It accepts any key, costs\n"
        "nothing, and really enlarges images. Set `api.base_url` to the address below.\n"
        "Ctrl-C stops it.",
        file=sys.stderr,
    )
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(run_simulator(Settings(), args.port, lambda url: print(url, flush=True)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"port {args.port} cannot be used: {reason}", hint="choose another one with --port") from error
    return 0
