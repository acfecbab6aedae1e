"""Run the simulator as a process of its own.

``python -m benchmarks.simulator_process SETTINGS`` takes the fields of `picwish_watchd.simulator.Settings` as JSON,
prints its base URL on one line, serves until its standard input ends, and prints every request as one line of JSON.
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
        {"operation": request.operation, "at": request.received_at, "status": request.status, "sha256": request.sha256}
        for request in simulator.requests
    ]
    print(json.dumps(requests), flush=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    if "processing" in settings:
        settings["processing"] = tuple(settings["processing"])
    asyncio.run(_serve(Settings(**settings)))
