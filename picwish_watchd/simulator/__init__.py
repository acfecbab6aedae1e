"""A stand-in for PicWish: the documented API over real HTTP on loopback, with images that are really enlarged.

The demo, ``simulate`` and the tests use it. ``server`` has the two ports. A request passes these modules:

1. ``http_connection`` reads it and writes the response (HTTP/1.1).
2. ``dispatch`` records it and applies the ``faults`` that the test has added.
3. ``api`` checks the key, the rate (``rate_window``) and the form (``multipart``), and creates or queries a task.
4. ``tasks`` keeps the tasks and charges; it uses ``image_fetch``, ``enhance`` and the records of ``ledger``.
5. ``result_server`` serves the download, on a port of its own.

``settings`` has the limits and times, and ``samples`` draws the demo's images.

    async with Simulator(Settings(qps=None)) as sim:
        sim.script.add(Fault("create", Reset(at="work")))  # accepted, then lost
        ...
        assert len(sim.tasks) == len(sim.ledger) == 1
"""

from picwish_watchd.simulator.faults import (
    HTML_PAGE,
    CutResponse,
    Drip,
    DuplicateTaskId,
    EndIn,
    Fault,
    FaultScript,
    Hang,
    NeverEnd,
    RefuseConnections,
    Reply,
    Reset,
    Rewrite,
    SendRaw,
    TruncateBody,
    drop_fields,
    nullify_fields,
    redirect,
    stringify_numbers,
)
from picwish_watchd.simulator.ledger import LedgerEntry, RecordedRequest
from picwish_watchd.simulator.server import Simulator, run_simulator
from picwish_watchd.simulator.settings import Settings
from picwish_watchd.simulator.tasks import Task

__all__ = [
    "HTML_PAGE",
    "CutResponse",
    "Drip",
    "DuplicateTaskId",
    "EndIn",
    "Fault",
    "FaultScript",
    "Hang",
    "LedgerEntry",
    "NeverEnd",
    "RecordedRequest",
    "RefuseConnections",
    "Reply",
    "Reset",
    "Rewrite",
    "SendRaw",
    "Settings",
    "Simulator",
    "Task",
    "TruncateBody",
    "drop_fields",
    "nullify_fields",
    "redirect",
    "run_simulator",
    "stringify_numbers",
]
