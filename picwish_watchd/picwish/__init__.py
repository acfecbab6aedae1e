"""Call PicWish's API; no other folder knows HTTP towards it.

Every response and every failure becomes a value of `outcomes`. Pure functions decide what PicWish means.

* ``client`` has one method for each request and keeps the rules of a paid POST. ``transport`` builds the connections
  and checks address and key; ``send_hook`` acts between the open connection and the first byte of a POST.
* ``multipart`` is the body of a POST. ``response`` receives a response, ``streaming_json`` parses it as it arrives and
  separates a base64 image, ``sink`` writes that into a file. ``download`` fetches a result by its URL.
* ``response_mapping`` turns a whole response into an outcome, ``error_mapping`` an error of the connection.
  ``task_states`` is PicWish's table of states, ``task_info`` the fields of a task, ``sanitize`` makes PicWish's texts
  safe to print.
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
