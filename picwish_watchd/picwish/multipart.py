"""The body of a paid POST, and how much of it was sent."""

import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum

from picwish_watchd.pricing import TaskType

#: Bytes handed over at once. Each chunk has `timeout` seconds to leave, so a slow line needs them small.
CHUNK_SIZE = 64 * 1024

_FILENAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTENT_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+")


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """The parameters of a task: an image or the URL of one, and the options (API document, "Body Parameters").

    Raises:
        ValueError: neither or both of ``image`` and ``image_url``, or a name that is not safe in a header.
    """

    #: The file. A memoryview is released once it was sent.
    image: memoryview | bytes | None = field(default=None, repr=False)
    #: A name in safe ASCII with the suffix of the format; never the user's file name.
    filename: str = "image"
    content_type: str = "application/octet-stream"
    image_url: str | None = field(default=None, repr=False)
    #: A `TaskType`.
    type: int = TaskType.ULTRA_HD
    #: 1 for a URL, 2 for base64.
    return_type: int = 1
    #: 0 for a task_id at once, 1 for the finished task.
    sync: int = 0

    def __post_init__(self) -> None:
        if (self.image is None) == (self.image_url is None):
            raise ValueError("a request needs an image or an image_url, and not both")
        if not _FILENAME.fullmatch(self.filename) or not _CONTENT_TYPE.fullmatch(self.content_type):
            raise ValueError(f"not fit for a header: {self.filename!r}, {self.content_type!r}")


class UploadPhase(Enum):
    """How far a POST got, as far as that can be proved."""

    #: Nothing left this machine.
    NOT_STARTED = "before"
    #: The end of the body was not handed over, so no server can have the whole request.
    INCOMPLETE = "unfinished"
    #: The end was handed over; it may have arrived.
    SENT = "sent"


class MultipartBody:
    """A multipart/form-data body (RFC 7578) of known length that is sent once and drops the image at its end.

    The closing boundary is a chunk of its own: until that was handed over, the request is provably incomplete.
    """

    def __init__(self, request: CreateRequest, on_sent: Callable[[], None]) -> None:
        """Call ``on_sent`` once, after the last chunk was handed over; the image is dropped by then."""
        boundary = secrets.token_hex(16)
        self._source_view = request.image if isinstance(request.image, memoryview) else None
        self._image = memoryview(b"" if request.image is None else request.image).cast("B")
        self._head, self._tail = _render_frame(request, boundary)
        self._on_sent = on_sent
        #: Bytes of the image; 0 if there is only a URL.
        self.image_size = len(self._image)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        #: Bytes of the whole body.
        self.length = len(self._head) + len(self._image) + len(self._tail)
        self.phase = UploadPhase.NOT_STARTED

    def allow_sending(self) -> None:
        """Permit the first byte to leave."""
        self.phase = UploadPhase.INCOMPLETE

    def release_image(self) -> None:
        """Drop the image and release the caller's view, which frees the memory even if the request is still held."""
        self._image = memoryview(b"")
        if self._source_view is not None:
            self._source_view.release()
            self._source_view = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.phase is not UploadPhase.INCOMPLETE:
            raise RuntimeError("the body was read before sending was permitted, or twice")
        yield self._head
        for start in range(0, self.image_size, CHUNK_SIZE):
            yield bytes(self._image[start : start + CHUNK_SIZE])
        self.release_image()
        self.phase = UploadPhase.SENT
        yield self._tail
        self._on_sent()


def _render_frame(request: CreateRequest, boundary: str) -> tuple[bytes, bytes]:
    """Return the parts of the body before and after the image."""
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
