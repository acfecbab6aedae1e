"""Parse the body of a create while it arrives: multipart/form-data (RFC 7578, RFC 2046 section 5.1) or urlencoded.

The image goes straight to a file, so that an upload of 30 MB is never in memory as a whole.
"""

import hashlib
import os
import re
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

IMAGE_FIELD = "image_file"
#: Bytes of a text field and of a part's head (our own limit; the API document names none).
MAX_FIELD_SIZE = 64 * 1024
_NAME = re.compile(rb';\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


class FormError(Exception):
    """The form is not accepted; ``status`` is the HTTP status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """The image of a form, in a file of the simulator."""

    path: Path
    #: Bytes.
    size: int
    #: Hexadecimal.
    sha256: str


@dataclass(frozen=True, slots=True)
class Form:
    """A complete form. Of several fields with one name the last counts."""

    fields: Mapping[str, str]
    #: None also if the uploaded file is empty
    upload: UploadedImage | None = None


async def parse_form(content_type: str, chunks: AsyncIterator[bytes], folder: Path, max_bytes: int) -> Form:
    """Read a form; its image is put into ``folder`` and belongs to the caller.

    Raises `FormError`: 400 if it is not a form, 413 for an image of more than ``max_bytes`` or too much text. Leaves no
    file behind if it raises.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return await _parse_urlencoded(chunks)
    boundary = _BOUNDARY.search(content_type)
    if kind != "multipart/form-data" or boundary is None:
        raise FormError(400, f"the body must be multipart/form-data with a boundary, not {kind or 'untyped'}")
    reader = MultipartParser((boundary[1] or boundary[2]).encode("latin-1"), folder, max_bytes)
    try:
        async for chunk in chunks:
            reader.feed(chunk)
        return reader.finish()
    finally:
        reader.close()


async def _parse_urlencoded(chunks: AsyncIterator[bytes]) -> Form:
    text = bytearray()
    async for chunk in chunks:
        text += chunk
        if len(text) > MAX_FIELD_SIZE:
            raise FormError(413, f"the form has more than {MAX_FIELD_SIZE} bytes")
    return Form(dict(urllib.parse.parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True)))


class MultipartParser:
    """Parses a multipart body in chunks of any size; keeps at most one chunk and a delimiter in memory.

    `close` removes the file of an image that `finish` did not hand over.
    """

    def __init__(self, boundary: bytes, folder: Path, max_bytes: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        # With this the first delimiter looks like all others.
        self._buffer = bytearray(b"\r\n")
        self._parse_step = self._skip_preamble
        self._folder = folder
        self._max_bytes = max_bytes
        self._texts: dict[str, bytearray] = {}
        self._name: str | None = None
        self._image: _UploadWriter | None = None

    def feed(self, data: bytes) -> None:
        """Parse the next chunk. Raises `FormError`."""
        self._buffer += data
        while self._parse_step():
            pass

    def finish(self) -> Form:
        """Return the form. Raises `FormError` if the closing delimiter is missing."""
        if self._parse_step != self._skip_epilogue:
            raise FormError(400, "the multipart body ends before its closing boundary")
        image, self._image = self._image, None
        fields = {name: text.decode("utf-8", "replace") for name, text in self._texts.items()}
        return Form(fields, image.commit() if image else None)

    def close(self) -> None:
        """Remove the file of an image that was not handed over."""
        if self._image is not None:
            self._image.discard()
            self._image = None

    def _skip_preamble(self) -> bool:
        return self._consume_to_delimiter()

    def _skip_epilogue(self) -> bool:
        self._buffer.clear()
        return False

    def _parse_boundary(self) -> bool:
        """Parse what follows a delimiter: two dashes end the form, a line end starts a part and stays in the buffer."""
        if self._buffer.startswith(b"--"):
            self._parse_step = self._skip_epilogue
            return True
        end = self._buffer.find(b"\r\n")
        if end < 0:
            self._check_head_size()
            return False
        if self._buffer[:end].strip(b" \t"):
            raise FormError(400, "a multipart boundary is followed by something else")
        del self._buffer[:end]
        self._parse_step = self._parse_part_head
        return True

    def _parse_part_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._check_head_size()
            return False
        self._start_part(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._parse_step = self._parse_part_data
        return True

    def _parse_part_data(self) -> bool:
        return self._consume_to_delimiter()

    def _consume_to_delimiter(self) -> bool:
        """Pass on the bytes that surely come before the next delimiter. Return whether the delimiter was found."""
        found = self._buffer.find(self._delimiter)
        end = found if found >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        with memoryview(self._buffer) as view, view[:end] as data:
            self._append_data(data)
        del self._buffer[: end + len(self._delimiter) if found >= 0 else end]
        if found >= 0:
            self._parse_step = self._parse_boundary
        return found >= 0

    def _check_head_size(self) -> None:
        if len(self._buffer) > MAX_FIELD_SIZE:
            raise FormError(400, f"the head of a multipart part has more than {MAX_FIELD_SIZE} bytes")

    def _start_part(self, head: bytes) -> None:
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disposition:")]
        name = _NAME.search(lines[0]) if lines else None
        if name is None:
            raise FormError(400, "a multipart part has no name")
        self._name = re.sub(rb"\\(.)", rb"\1", name[1] or name[2] or b"").decode("utf-8", "replace")
        if self._name == IMAGE_FIELD:
            self.close()
            self._image = _UploadWriter(self._folder)
        else:
            self._texts[self._name] = bytearray()

    def _append_data(self, data: memoryview) -> None:
        if self._name is None:
            return
        if self._name == IMAGE_FIELD:
            assert self._image is not None
            self._image.write(data)
            if self._image.size > self._max_bytes:
                raise FormError(413, f"image_file has more than {self._max_bytes} bytes")
        else:
            text = self._texts[self._name]
            text += data
            if len(text) > MAX_FIELD_SIZE:
                raise FormError(413, f"the field {self._name!r} has more than {MAX_FIELD_SIZE} bytes")


class _UploadWriter:
    """The file of an image that is being uploaded."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{secrets.token_hex(16)}.upload"
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: memoryview) -> None:
        """Append data. Raises OSError if it cannot be written completely."""
        self._hash.update(data)
        while data:
            written = os.write(self._fd, data)
            self.size += written
            data = data[written:]

    def commit(self) -> UploadedImage | None:
        """Close the file and return the upload; if it is empty, remove the file and return None."""
        if self.size == 0:
            self.discard()
            return None
        os.close(self._fd)
        return UploadedImage(self._path, self.size, self._hash.hexdigest())

    def discard(self) -> None:
        """Close and remove the file."""
        os.close(self._fd)
        self._path.unlink()
