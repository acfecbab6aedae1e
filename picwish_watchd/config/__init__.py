"""The configuration: a YAML file becomes one frozen `Config`, or all of its faults at once.

``find`` says which file, ``load`` reads it, ``read_key`` fetches the API key. Inside, from the ground up: ``units`` and
``texts`` judge single values, ``private`` reads files of secrets, ``extras`` knows what must be installed besides,
``source`` reads YAML with its lines, ``places`` finds the file, ``schema`` names the keys (``notifiers`` those
of `notify:`), ``dangers`` judges combinations, ``reading`` puts them together, ``messages`` words the faults.
``outline`` is what the running daemon tells of its configuration, and ``glance`` what is seen of the file without
judging it: so `status` need not judge it once more.

Each name is fetched when it is first asked for: pydantic and the schema take 0.2 s, more than most commands do.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from picwish_watchd.config.key import read_key
    from picwish_watchd.config.notifiers import Apprise, Command, Email, Event, Notifier, Security, Way, Webhook
    from picwish_watchd.config.places import find
    from picwish_watchd.config.private import PrivateFile
    from picwish_watchd.config.reading import load
    from picwish_watchd.config.schema import (
        Api,
        Budget,
        Burst,
        Charging,
        Config,
        Http,
        IfExists,
        Log,
        LogFormat,
        LogLevel,
        Observer,
        OnFailure,
        OnSuccess,
        Oversize,
        Rule,
    )
    from picwish_watchd.config.texts import Address
else:
    _HOMES = {
        "key": ("read_key",),
        "notifiers": ("Apprise", "Command", "Email", "Event", "Notifier", "Security", "Way", "Webhook"),
        "places": ("find",),
        "private": ("PrivateFile",),
        "reading": ("load",),
        "schema": (
            "Api", "Budget", "Burst", "Charging", "Config", "Http", "IfExists", "Log", "LogFormat", "LogLevel",
            "Observer", "OnFailure", "OnSuccess", "Oversize", "Rule",
        ),
        "texts": ("Address",),
    }  # fmt: skip
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:  # PEP 562
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


__all__ = [
    "Address",
    "Api",
    "Apprise",
    "Budget",
    "Burst",
    "Charging",
    "Command",
    "Config",
    "Email",
    "Event",
    "Http",
    "IfExists",
    "Log",
    "LogFormat",
    "LogLevel",
    "Notifier",
    "Observer",
    "OnFailure",
    "OnSuccess",
    "Oversize",
    "PrivateFile",
    "Rule",
    "Security",
    "Way",
    "Webhook",
    "find",
    "load",
    "read_key",
]
