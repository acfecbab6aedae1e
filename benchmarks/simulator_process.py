"""The simulator as a process of its own: tells its address, and at its end what it has seen.

``python -m benchmarks.simulator_process SETTINGS`` takes the fields of `picwish_watchd.simulator.Settings` as JSON,
prints one line with its base URL, serves until its standard input ends, and prints one line of JSON with every request.
"""

import asyncio
import json
import sys

from picwish_watchd.simulator import Settings, Simulator


async def _serve(settings: Settings) -> None:
    async with Simulator(settings) as simulator:
        print(simulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    requests = [
        {"operation": seen.operation, "at": seen.received_at, "status": seen.status, "sha256": seen.sha256}
        for seen in simulator.requests
    ]
    print(json.dumps(requests), flush=True)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    if "processing" in told:
        told["processing"] = tuple(told["processing"])
    asyncio.run(_serve(Settings(**told)))
