"""The configuration: a YAML file becomes one frozen `Config`, or all of its faults at once.

``find`` says which file, ``load`` reads it, ``read_key`` fetches the API key. Inside, from the ground up: ``units`` and
``texts`` judge single values, ``private`` reads files of secrets, ``extras`` knows what must be installed besides,
``schema`` names the keys (``notifiers`` those of `notify:`), ``source`` reads YAML with its lines, ``dangers`` judges
combinations, ``reading`` puts them together, ``messages`` words the faults.
"""

from picwish_watchd.config.key import read_key
from picwish_watchd.config.notifiers import Apprise, Command, Email, Event, Notifier, Security, Way, Webhook
from picwish_watchd.config.private import PrivateFile
from picwish_watchd.config.reading import find, load
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
