"""Parse the JSON of a response as it arrives: decode a base64 image on the way, parse the rest at the end.

A result of 50 MB is never in memory as a whole. Only the string at ``data.image`` is treated in this way.
"""

import binascii
import json
import re
from dataclasses import dataclass
from typing import cast

from picwish_watchd.picwish.task_info import parse_int, parse_task_id

#: Bytes of a response without the image.
MAX_JSON_SIZE = 1024 * 1024
#: Bytes of the image's URL as it is written in the JSON.
MAX_IMAGE_URL_SIZE = 16 * 1024
#: Levels of nested objects and arrays.
MAX_DEPTH = 64

# Bytes of ``data.image`` that suffice to distinguish a URL from base64.
_HEAD = 512
_STRING_BODY = re.compile(rb'(?:[^"\\]++|\\(?:u[0-9a-fA-F]{4}|[^u]))*+')
_TOKEN = re.compile(rb'[{}\[\]:,"]')
_SCHEME = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*:")
# Bytes of the longest escape in a JSON string, ``\u0000``.
_MAX_ESCAPE_LENGTH = 6
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


class MalformedResponseError(Exception):
    """The response is not the documented JSON; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A response without its image (API document, "Return Parameters")."""

    status: int | None
    message: str
    data: dict[str, object]
    #: ``data.image`` if it is a URL.
    image_url: str | None


class Base64Decoder:
    """A decoder of base64 in chunks (RFC 4648): both alphabets, white space anywhere, padding optional."""

    _TO_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")

    def __init__(self) -> None:
        self._rest = b""
        self._padding = 0

    def feed(self, text: bytes) -> bytes:
        """Return the bytes that are complete now. Raise ValueError for text that is not base64."""
        text = text.translate(self._TO_STANDARD_ALPHABET, _SPACE)
        letters = text.rstrip(b"=")
        if letters and (self._padding or b"=" in letters):
            raise ValueError("padding before the end")
        self._padding += len(text) - len(letters)
        letters = self._rest + letters
        whole = len(letters) - len(letters) % 4
        self._rest = letters[whole:]
        return binascii.a2b_base64(letters[:whole], strict_mode=True)

    def finish(self) -> bytes:
        """Return the last bytes. Raise ValueError if base64 cannot end where the text ends."""
        missing = -len(self._rest) % 4
        if missing == 3 or self._padding > missing:
            raise ValueError("cut, or padded too much")
        return binascii.a2b_base64(self._rest + b"=" * missing, strict_mode=True)


class _ImageStringParser:
    """The string at ``data.image``: a URL is kept as it is written, base64 is decoded."""

    def __init__(self) -> None:
        #: The URL as it is written in the JSON, with its escapes.
        self.raw_url = b""
        #: Whether bytes of a base64 image came.
        self.has_data = False
        self.image_defect: str | None = None
        self._head: bytes | None = b""
        self._pending = b""
        self._prefixed = False
        self._decoder: Base64Decoder | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the decoded bytes, and what follows the closing quote, or None if that has not come."""
        data = self._pending + data
        match = _STRING_BODY.match(data)
        assert match is not None, "the pattern matches the empty string, too"
        text, rest = match[0], data[match.end() :]
        closed = rest[:1] == b'"'
        self._pending = b"" if closed else rest
        if len(self._pending) >= _MAX_ESCAPE_LENGTH:
            raise MalformedResponseError("an illegal escape in data.image")
        return self._decode_or_reject(text, closed=closed), rest[1:] if closed else None

    def _decode_or_reject(self, text: bytes, *, closed: bool) -> bytes:
        if self.image_defect is not None:
            return b""
        try:
            decoded = self._consume_text(text, closed=closed)
            if closed and self._decoder is not None:
                decoded += self._decoder.finish()
        except ValueError as error:
            self.image_defect = f"the image is not valid base64 ({error})"
            return b""
        self.has_data = self.has_data or bool(decoded)
        return decoded

    def _consume_text(self, text: bytes, *, closed: bool) -> bytes:
        if self._head is not None:
            self._head += text
            if len(self._head) < _HEAD and not closed:
                return b""
            text, self._head = self._head, None
            self._detect_encoding(_unescape_ascii(text))
        if self._decoder is not None:
            return self._decoder.feed(self._strip_data_prefix(_unescape_ascii(text)))
        self.raw_url += text
        if len(self.raw_url) > MAX_IMAGE_URL_SIZE:
            self.raw_url = b""
            self.image_defect = f"the URL of the image has more than {MAX_IMAGE_URL_SIZE} characters"
        return b""

    def _detect_encoding(self, head: bytes) -> None:
        head = head.lstrip(_SPACE)
        if head and (not _SCHEME.match(head) or head[:5].lower() == b"data:"):
            self._decoder = Base64Decoder()
            self._prefixed = head[:5].lower() == b"data:"

    def _strip_data_prefix(self, text: bytes) -> bytes:
        """Return ``text`` without the ``data:image/...;base64,`` (RFC 2397) that the first chunk may begin with."""
        if not self._prefixed:
            return text
        self._prefixed = False
        prefix, comma, rest = text.partition(b",")
        if not comma or not prefix.lower().rstrip().endswith(b";base64"):
            raise ValueError("a data: prefix without ;base64")
        return rest


class StreamingResponseParser:
    """The parser of one response. What was read before it broke stays available, above all ``task_id``."""

    def __init__(self) -> None:
        #: Whether the JSON object is closed; what follows is ignored.
        self.is_complete = False
        #: The string at ``data.task_id``, known as soon as it was read.
        self.task_id: str | None = None
        self._rest = bytearray()
        # How much of the rest is scanned.
        self._at = 0
        # Where the string begins that is being scanned.
        self._string_start: int | None = None
        self._is_key = False
        # The brackets that are open.
        self._open_brackets = bytearray()
        # The key at each open bracket, as JSON.
        self._key_path: list[bytes] = []
        self._image_parser: _ImageStringParser | None = None
        self._in_image = False

    @property
    def image_defect(self) -> str | None:
        """What is wrong with the image, or None."""
        return None if self._image_parser is None else self._image_parser.image_defect

    @property
    def has_image_data(self) -> bool:
        """Whether bytes of a base64 image came."""
        return self._image_parser is not None and self._image_parser.has_data

    @property
    def is_image_complete(self) -> bool:
        """Whether a base64 image came from its first to its last character."""
        return self.has_image_data and self.image_defect is None and not self._in_image

    def feed(self, data: bytes) -> bytes:
        """Parse the next bytes, cut anywhere, and return the bytes of the image that they contain.

        Raises:
            MalformedResponseError: this can no longer become a valid response.
        """
        decoded = b""
        if self._in_image:
            decoded, data = self._feed_image(data)
        while data and not self.is_complete:
            self._rest += data
            data = b""
            self._scan()
            if self._in_image:
                begun, self._rest = bytes(self._rest[self._at :]), self._rest[: self._at]
                more, data = self._feed_image(begun)
                decoded += more
            if len(self._rest) > MAX_JSON_SIZE:
                raise MalformedResponseError(f"more than {MAX_JSON_SIZE} bytes beside the image")
        return decoded

    def finish(self) -> Envelope:
        """Return the response without its image.

        Raises:
            MalformedResponseError: it is not complete, or not the documented kind of JSON.
        """
        if not self.is_complete:
            raise MalformedResponseError(
                "the answer was cut short" if self._rest.strip(_SPACE) else "the answer was empty"
            )
        text = self._rest.removeprefix(_BOM).decode("utf-8", "replace").lstrip()
        try:
            answer, _ = json.JSONDecoder(strict=False).raw_decode(text)
        except ValueError as error:
            raise MalformedResponseError("the answer is not JSON") from error
        # The text begins with a brace, so this is an object.
        answer = cast("dict[str, object]", answer)
        message, data = answer.get("message"), answer.get("data")
        data = data if isinstance(data, dict) else {}
        image = data.pop("image", None)
        return Envelope(
            status=parse_int(answer.get("status")),
            message=message if isinstance(message, str) else "",
            data=data,
            image_url=image.strip() or None if isinstance(image, str) else None,
        )

    def _feed_image(self, data: bytes) -> tuple[bytes, bytes]:
        assert self._image_parser is not None
        decoded, behind = self._image_parser.feed(data)
        if behind is None:
            return decoded, b""
        self._in_image = False
        self._rest += self._image_parser.raw_url + b'"'
        self._at = len(self._rest)
        return decoded, behind

    def _scan(self) -> None:
        """Scan the structure up to the end of what came or to the beginning of the image."""
        while self._at < len(self._rest) and not self._in_image and not self.is_complete:
            if self._string_start is not None:
                if not self._scan_string(self._string_start):
                    return
                continue
            mark = _TOKEN.search(self._rest, self._at)
            if not self._open_brackets:
                self._check_start(mark.start() if mark else len(self._rest))
            self._at = len(self._rest) if mark is None else mark.end()
            if mark is not None:
                self._scan_token(mark[0])

    def _check_start(self, until: int) -> None:
        start = bytes(self._rest[:until]).removeprefix(_BOM).strip(_SPACE)
        brace = bytes(self._rest[until : until + 1]) in (b"{", b"")
        if not brace or (start and not _BOM.startswith(start)):
            raise MalformedResponseError("the answer is not a JSON object")

    def _scan_string(self, start: int) -> bool:
        """Scan the rest of a string; return whether its end has come."""
        match = _STRING_BODY.match(self._rest, self._at)
        assert match is not None, "the pattern matches the empty string, too"
        self._at = match.end()
        if bytes(self._rest[self._at : self._at + 1]) != b'"':
            if len(self._rest) - self._at >= _MAX_ESCAPE_LENGTH:
                raise MalformedResponseError("an illegal escape")
            return False
        self._at += 1
        self._string_start = None
        if self._is_key:
            self._key_path[-1] = _normalize_key(bytes(self._rest[start : self._at]))
        elif self._key_path == [b'"data"', b'"task_id"']:
            self.task_id = parse_task_id(_load_string(bytes(self._rest[start : self._at])))
        return True

    def _scan_token(self, mark: bytes) -> None:
        if mark in b"{[":
            self._open_brackets += mark
            self._key_path.append(b"")
            self._is_key = mark == b"{"
            if len(self._open_brackets) > MAX_DEPTH:
                raise MalformedResponseError(f"more than {MAX_DEPTH} nested objects and arrays")
        elif mark in b"}]":
            self._close_bracket(mark)
        elif mark == b":":
            self._is_key = False
        elif mark == b",":
            self._is_key = bytes(self._open_brackets[-1:]) == b"{"
        elif not self._is_key and self._key_path == [b'"data"', b'"image"']:
            if self._image_parser is not None:
                raise MalformedResponseError("data.image came twice")
            self._image_parser, self._in_image = _ImageStringParser(), True
        else:
            self._string_start = self._at - 1

    def _close_bracket(self, mark: bytes) -> None:
        if bytes(self._open_brackets[-1:]) != (b"{" if mark == b"}" else b"["):
            raise MalformedResponseError("brackets that do not match")
        del self._open_brackets[-1:], self._key_path[-1:]
        self._is_key = False
        self.is_complete = not self._open_brackets


def _unescape_ascii(text: bytes) -> bytes:
    """Return the text of a JSON string's inside. Raise ValueError if it is not ASCII."""
    if b"\\" not in text:
        return text
    return cast("str", json.loads(f'"{text.decode("ascii")}"', strict=False)).encode("ascii")


def _normalize_key(text: bytes) -> bytes:
    """Return a key as JSON in one spelling; PicWish may write it with escapes."""
    return json.dumps(_load_string(text)).encode() if b"\\" in text else text


def _load_string(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)
    except ValueError as error:
        raise MalformedResponseError("an illegal string") from error
