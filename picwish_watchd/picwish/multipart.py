"""The form of a POST, in pieces, and how far it got."""

import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum

from picwish_watchd.pricing import TaskType

CHUNK_SIZE = (
    64 * 1024
    #: bytes that are handed over at once; each has `timeout` to leave, so a slow line needs them small
)

_FILENAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTENT_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+")


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What is asked of PicWish: a picture or the address of one, and how (API document, "Body Parameters").

    Raises:
        ValueError: neither or both of ``image`` and ``image_url``, or a name that does not belong into a header.
    """

    #: a memoryview is released once it was sent
    image: memoryview | bytes | None = field(default=None, repr=False)
    #: safe ASCII with the suffix of the format; never the user's file name
    filename: str = "image"
    content_type: str = "application/octet-stream"
    image_url: str | None = field(default=None, repr=False)
    #: a `TaskType`
    type: int = TaskType.ULTRA_HD
    #: 1 an address, 2 base64
    return_type: int = 1
    #: 0 a task_id at once, 1 the finished task
    sync: int = 0

    def __post_init__(self) -> None:
        if (self.image is None) == (self.image_url is None):
            raise ValueError("a request needs an image or an image_url, and not both")
        if not _FILENAME.fullmatch(self.filename) or not _CONTENT_TYPE.fullmatch(self.content_type):
            raise ValueError(f"not fit for a header: {self.filename!r}, {self.content_type!r}")


class UploadPhase(Enum):
    """How far a POST got, by what can be proved."""

    #: nothing left this machine
    NOT_STARTED = "before"
    #: the end of the body was not even handed over: no server can have the whole request
    INCOMPLETE = "unfinished"
    #: the end was handed over; it may have arrived
    SENT = "sent"


class MultipartBody:
    """A multipart/form-data body (RFC 7578) of known length, handed over once, that lets go of the image at its end.

    The closing boundary is a piece of its own: as long as that was not taken, the request is provably incomplete.
    """

    def __init__(self, request: CreateRequest, sent: Callable[[], None]) -> None:
        """``sent`` is called once, when the last piece has been taken over; by then the image is let go of."""
        boundary = secrets.token_hex(16)
        self._source_view = request.image if isinstance(request.image, memoryview) else None
        self._image = memoryview(b"" if request.image is None else request.image).cast("B")
        self._head, self._tail = _render_frame(request, boundary)
        self._on_sent = sent
        #: bytes
        self.image_size = len(self._image)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        #: bytes
        self.length = len(self._head) + len(self._image) + len(self._tail)
        self.phase = UploadPhase.NOT_STARTED

    def allow_sending(self) -> None:
        """The first byte may go."""
        self.phase = UploadPhase.INCOMPLETE

    def release_image(self) -> None:
        """Lets go of the image, and releases the caller's view, so that it is gone whoever still holds the request."""
        self._image = memoryview(b"")
        if self._source_view is not None:
            self._source_view.release()
            self._source_view = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.phase is not UploadPhase.INCOMPLETE:
            raise RuntimeError("a body was asked for before it was permitted, or twice")
        yield self._head
        for start in range(0, self.image_size, CHUNK_SIZE):
            yield bytes(self._image[start : start + CHUNK_SIZE])
        self.release_image()
        self.phase = UploadPhase.SENT
        yield self._tail
        self._on_sent()


def _render_frame(request: CreateRequest, boundary: str) -> tuple[bytes, bytes]:
    """What stands before and behind the image."""
    head = _render_field("type", request.type, boundary)
    head += _render_field("return_type", request.return_type, boundary) + _render_field("sync", request.sync, boundary)
    if request.image_url is not None:
        return head + _render_field("image_url", request.image_url, boundary), f"--{boundary}--\r\n".encode("ascii")
    file = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image_file"; filename="{request.filename}"\r\n'
        f"Content-Type: {request.content_type}\r\n\r\n"
    )
    return head + file.encode("ascii"), f"\r\n--{boundary}--\r\n".encode("ascii")


def _render_field(name: str, value: object, boundary: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
