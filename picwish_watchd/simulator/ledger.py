"""What the simulator records: charges and requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Operation = Literal["create", "query", "download", "other"]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The charge for one successful task."""

    task_id: str
    #: 5 for type 0, 4 for type 1 (API document, guideline 4)
    credits: int
    type: int
    #: Hexadecimal; of the uploaded bytes, or of the image_url.
    sha256: str
    #: Unix seconds
    charged_at: float


@dataclass(slots=True)
class RecordedRequest:
    """One request: recorded when its head was read, completed while it is served."""

    operation: Operation
    method: str
    #: Without the query string.
    path: str
    #: The clock's monotonic seconds when its first byte was read.
    received_at: float
    #: Whether it had an X-API-KEY header, with any value.
    has_key: bool
    #: Names in lower case; the key's value is not kept.
    headers: Mapping[str, str]
    #: HTTP status of the response; None until there is one.
    status: int | None = None
    #: Text fields of a create's form, without the image.
    fields: Mapping[str, str] = field(default_factory=dict)
    #: Hexadecimal hash of the upload or the image_url; for a query or download, that of its task.
    sha256: str | None = None
    #: Bytes of the upload.
    size: int | None = None
    task_id: str | None = None
