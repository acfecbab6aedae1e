"""What the simulator remembers, for tests that count."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Operation = Literal["create", "query", "download", "other"]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Credits taken for one task that succeeded."""

    task_id: str
    credits: int  #: 5 for type 0, 4 for type 1 (API document, guideline 4)
    type: int
    sha256: str  #: hexadecimal, of the uploaded bytes or of the image_url
    charged_at: float  #: Unix seconds


@dataclass(slots=True)
class RecordedRequest:
    """One request: noted when its head was read, filled in while it is served."""

    operation: Operation
    method: str
    path: str  #: without the query string
    received_at: float  #: the clock's monotonic seconds when its first byte was read
    has_key: bool  #: an X-API-KEY header came, whatever its value
    headers: Mapping[str, str]  #: names in lower case; the key's value is not kept
    status: int | None = None  #: of the answer; None while there is none, and where none was given
    fields: Mapping[str, str] = field(default_factory=dict)  #: of a create, the image left out
    sha256: str | None = None  #: of the upload or the image_url; for query and download that of their task
    size: int | None = None  #: bytes of the upload
    task_id: str | None = None
