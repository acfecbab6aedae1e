"""The fields of a task that PicWish documents, read liberally."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from picwish_watchd.picwish.sanitize import sanitize

# Characters. A longer text is not accepted as an id; PicWish's ids have 36.
_MAX_ID_LENGTH = 256
# A larger timestamp would be the year 5138 in seconds, so it is in milliseconds.
_MAX_SECONDS_TIMESTAMP = 1e11


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """``data`` of a response without the image (API document, "Return Parameters").

    A field is None if it is missing, null or unreadable. Times are Unix seconds. PicWish does not document the units
    of ``download_time`` and ``time_elapsed``.
    """

    task_id: str | None = None
    created_at: float | None = None
    processed_at: float | None = None
    completed_at: float | None = None
    return_type: int | None = None
    type: int | None = None
    #: Per cent, 0 to 100.
    progress: float | None = None
    state: int | None = None
    #: Pixels.
    image_width: int | None = None
    #: Pixels.
    image_height: int | None = None
    image_size_kb: float | None = None
    out_format: str | None = None
    state_detail: str | None = None
    download_time: float | None = None
    time_elapsed: float | None = None

    @property
    def duration(self) -> float | None:
        """Seconds from creation to completion by PicWish's clocks; may be negative where these are wrong."""
        if self.created_at is None or self.completed_at is None:
            return None
        return self.completed_at - self.created_at

    def to_json(self) -> str:
        """Return one line of JSON with every field, for the journal and the sidecar."""
        return json.dumps(asdict(self), ensure_ascii=False)


def parse_task_info(data: Mapping[str, object], secret: str = "") -> TaskInfo:
    """Read ``data`` without ever failing: fields may be missing, null, unknown or nonsense, numbers may be strings.

    ``secret`` is the API key, which is removed from the texts.
    """
    return TaskInfo(
        task_id=parse_task_id(data.get("task_id")),
        created_at=_parse_timestamp(data.get("created_at")),
        processed_at=_parse_timestamp(data.get("processed_at")),
        completed_at=_parse_timestamp(data.get("completed_at")),
        return_type=parse_int(data.get("return_type")),
        type=parse_int(data.get("type")),
        progress=_parse_number(data.get("progress")),
        state=parse_int(data.get("state")),
        image_width=parse_int(data.get("image_width")),
        image_height=parse_int(data.get("image_height")),
        image_size_kb=_parse_number(data.get("image_size_kb")),
        out_format=_parse_text(data.get("out_format"), secret),
        state_detail=_parse_text(data.get("state_detail"), secret),
        download_time=_parse_number(data.get("download_time")),
        time_elapsed=_parse_number(data.get("time_elapsed")),
    )


def parse_task_id(value: object) -> str | None:
    """Return a usable id or None: 1 to 256 printable characters without spaces, and neither ``.`` nor ``..``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    name = value.strip()
    usable = 0 < len(name) <= _MAX_ID_LENGTH and name.isprintable() and " " not in name and name not in {".", ".."}
    return name if usable else None


def parse_int(value: object) -> int | None:
    """Return 3 for ``3``, ``3.0`` and ``"3"``; None for what is no whole number."""
    number = _parse_number(value)
    return int(number) if number is not None and number.is_integer() else None


def _parse_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _parse_timestamp(value: object) -> float | None:
    number = _parse_number(value)
    # PicWish writes 0 for "not yet".
    if number is None or number <= 0:
        return None
    return number / 1000 if number > _MAX_SECONDS_TIMESTAMP else number


def _parse_text(value: object, secret: str) -> str | None:
    return sanitize(value, secret) or None if isinstance(value, str) else None
