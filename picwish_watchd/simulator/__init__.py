"""A stand-in for PicWish: the documented API over real HTTP on loopback, with pictures that are really enlarged.

The demo, ``simulate`` and the tests use it. A request's way: ``channel`` (HTTP/1.1) -> ``desk`` (noted; faults of the
``script`` befall it) -> ``api`` (key, rate, ``forms``) -> ``tasks`` (``fetch``, ``enhance``, the ledger of charges)
-> ``results`` (the download, on a port of its own).

    async with Simulator(Settings(qps=None)) as sim:
        sim.script.add(Fault("create", Reset(at="work")))  # accepted, then lost
        ...
        assert len(sim.tasks) == len(sim.ledger) == 1
"""

from picwish_watchd.simulator.faults import (
    HTML_PAGE,
    Cut,
    Drip,
    DuplicateTaskId,
    EndIn,
    Fault,
    Hang,
    NeverEnd,
    Raw,
    Refuse,
    Reply,
    Reset,
    Rewrite,
    Script,
    Trim,
    nulls,
    numbers_as_strings,
    redirect,
    without,
)
from picwish_watchd.simulator.ledger import Charge, Seen
from picwish_watchd.simulator.server import Simulator, serve
from picwish_watchd.simulator.settings import Settings
from picwish_watchd.simulator.tasks import Task

__all__ = [
    "HTML_PAGE",
    "Charge",
    "Cut",
    "Drip",
    "DuplicateTaskId",
    "EndIn",
    "Fault",
    "Hang",
    "NeverEnd",
    "Raw",
    "Refuse",
    "Reply",
    "Reset",
    "Rewrite",
    "Script",
    "Seen",
    "Settings",
    "Simulator",
    "Task",
    "Trim",
    "nulls",
    "numbers_as_strings",
    "redirect",
    "serve",
    "without",
]
