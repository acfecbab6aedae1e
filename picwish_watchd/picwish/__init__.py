"""The room that calls PicWish's API, and the only one that knows HTTP.

Every answer and every failure comes out as a value of `outcomes`; what PicWish means is decided by pure functions.

* ``client``: one method for each request, and the rules of a paid POST.
* ``bodies`` writes the form of a POST; ``arrival`` takes an answer in, ``reader`` parses it as it comes and turns a
  base64 picture aside, ``sink`` puts that into a file; ``download`` fetches a result by its address.
* ``wire`` turns a whole answer into an outcome, ``faults`` does it with what broke; ``states`` is PicWish's table of
  states, ``answer`` its fields, ``plain`` what makes its texts fit to print.
"""

from picwish_watchd.picwish.client import PicwishClient, RequestTimeouts
from picwish_watchd.picwish.multipart import CreateRequest
from picwish_watchd.picwish.outcomes import (
    Accepted,
    CreateOutcome,
    DeadUrl,
    Downloaded,
    DownloadOutcome,
    Finished,
    Healthy,
    InDoubt,
    InvalidResult,
    NotAccepted,
    NotSent,
    NotStored,
    ProbeOutcome,
    Processing,
    QueryOutcome,
    RateLimited,
    Refused,
    Succeeded,
    TaskFailed,
    TaskNotFound,
    Unauthorized,
    Unavailable,
)
from picwish_watchd.picwish.task_info import TaskInfo

__all__ = [
    "Accepted",
    "CreateOutcome",
    "CreateRequest",
    "DeadUrl",
    "DownloadOutcome",
    "Downloaded",
    "Finished",
    "Healthy",
    "InDoubt",
    "InvalidResult",
    "NotAccepted",
    "NotSent",
    "NotStored",
    "PicwishClient",
    "ProbeOutcome",
    "Processing",
    "QueryOutcome",
    "RateLimited",
    "Refused",
    "RequestTimeouts",
    "Succeeded",
    "TaskFailed",
    "TaskInfo",
    "TaskNotFound",
    "Unauthorized",
    "Unavailable",
]
