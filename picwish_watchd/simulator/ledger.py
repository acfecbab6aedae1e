"""What the simulator remembers, for tests that count."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Operation = Literal["create", "query", "download", "other"]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Credits taken for one task that succeeded."""

    task_id: str
    #: 5 for type 0, 4 for type 1 (API document, guideline 4)
    credits: int
    type: int
    #: hexadecimal, of the uploaded bytes or of the image_url
    sha256: str
    #: Unix seconds
    charged_at: float


@dataclass(slots=True)
class RecordedRequest:
    """One request: noted when its head was read, filled in while it is served."""

    operation: Operation
    method: str
    #: without the query string
    path: str
    #: the clock's monotonic seconds when its first byte was read
    received_at: float
    #: an X-API-KEY header came, whatever its value
    has_key: bool
    #: names in lower case; the key's value is not kept
    headers: Mapping[str, str]
    #: of the answer; None while there is none, and where none was given
    status: int | None = None
    #: of a create, the image left out
    fields: Mapping[str, str] = field(default_factory=dict)
    #: of the upload or the image_url; for query and download that of their task
    sha256: str | None = None
    #: bytes of the upload
    size: int | None = None
    task_id: str | None = None
