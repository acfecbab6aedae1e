"""An answer's JSON, read as it arrives: a base64 picture is decoded and turned aside, the rest is parsed at the end.

A result of 50 MB never stands in memory: only the string at ``data.image`` is treated so, and only pieces of it.
"""

import binascii
import json
import re
from dataclasses import dataclass
from typing import cast

from picwish_watchd.picwish.task_info import parse_int, parse_task_id

#: bytes of an answer beside the picture
MAX_JSON_SIZE = 1024 * 1024
#: bytes of a picture's address, as it stands in the JSON
MAX_IMAGE_URL_SIZE = 16 * 1024
#: objects and arrays in each other
MAX_DEPTH = 64

#: bytes of ``data.image`` that tell an address from base64
_HEAD = 512
_STRING_BODY = re.compile(rb'(?:[^"\\]++|\\(?:u[0-9a-fA-F]{4}|[^u]))*+')
_TOKEN = re.compile(rb'[{}\[\]:,"]')
_SCHEME = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*:")
_MAX_ESCAPE_LENGTH = 6
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


class MalformedResponseError(Exception):
    """This is not the JSON that was promised; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An answer without its picture (API document, "Return Parameters")."""

    status: int | None
    message: str
    data: dict[str, object]
    #: ``data.image``, if it is an address
    image_url: str | None


class Base64Decoder:
    """Decodes base64 in pieces (RFC 4648): both alphabets, white space anywhere, padding may be missing."""

    _TO_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")

    def __init__(self) -> None:
        self._rest = b""
        self._padding = 0

    def feed(self, text: bytes) -> bytes:
        """The bytes that are complete now. Raises ValueError for what is not base64."""
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
        """The last bytes. Raises ValueError if the text does not end where base64 can end."""
        missing = -len(self._rest) % 4
        if missing == 3 or self._padding > missing:
            raise ValueError("cut, or padded too much")
        return binascii.a2b_base64(self._rest + b"=" * missing, strict_mode=True)


class _ImageStringParser:
    """The string at ``data.image``: an address is kept as it stands, base64 is decoded."""

    def __init__(self) -> None:
        #: as it stands in the JSON
        self.raw_url = b""
        #: base64 came
        self.has_data = False
        self.image_defect: str | None = None
        self._head: bytes | None = b""
        self._pending = b""
        self._prefixed = False
        self._decoder: Base64Decoder | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The decoded bytes, and what stood behind the closing quote (None: that has not come)."""
        data = self._pending + data
        match = _STRING_BODY.match(data)
        assert match is not None, "the pattern matches nothing, too"
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
            self.image_defect = f"the picture is not valid base64 ({error})"
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
            self.raw_url, self.image_defect = (
                b"",
                f"the picture's address has more than {MAX_IMAGE_URL_SIZE} characters",
            )
        return b""

    def _detect_encoding(self, head: bytes) -> None:
        head = head.lstrip(_SPACE)
        if head and (not _SCHEME.match(head) or head[:5].lower() == b"data:"):
            self._decoder = Base64Decoder()
            self._prefixed = head[:5].lower() == b"data:"

    def _strip_data_prefix(self, text: bytes) -> bytes:
        """Without the ``data:image/...;base64,`` (RFC 2397) that may stand before the first piece."""
        if not self._prefixed:
            return text
        self._prefixed = False
        prefix, comma, rest = text.partition(b",")
        if not comma or not prefix.lower().rstrip().endswith(b";base64"):
            raise ValueError("a data: prefix without ;base64")
        return rest


class StreamingResponseParser:
    """Reads one answer. Whatever breaks, what was read until then can be asked for: above all ``task_id``."""

    def __init__(self) -> None:
        #: the JSON object is closed; what follows is ignored
        self.is_complete = False
        #: the string at ``data.task_id``, known as soon as it was read
        self.task_id: str | None = None
        self._rest = bytearray()
        # up to here the rest is scanned
        self._at = 0
        # where the string begins that is being scanned
        self._string_start: int | None = None
        self._is_key = False
        # the brackets that are open
        self._open_brackets = bytearray()
        # the key at each of them, as JSON
        self._key_path: list[bytes] = []
        self._image_parser: _ImageStringParser | None = None
        self._in_picture = False

    @property
    def image_defect(self) -> str | None:
        """What is wrong with the picture."""
        return None if self._image_parser is None else self._image_parser.image_defect

    @property
    def has_image_data(self) -> bool:
        """Bytes of a base64 picture came."""
        return self._image_parser is not None and self._image_parser.has_data

    @property
    def is_image_complete(self) -> bool:
        """A base64 picture came from its first to its last letter."""
        return self.has_image_data and self.image_defect is None and not self._in_picture

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes, cut anywhere, and gives the bytes of the picture that they bring.

        Raises:
            GarbledError: this cannot become an answer any more.
        """
        decoded = b""
        if self._in_picture:
            decoded, data = self._feed_image(data)
        while data and not self.is_complete:
            self._rest += data
            data = b""
            self._scan()
            if self._in_picture:
                begun, self._rest = bytes(self._rest[self._at :]), self._rest[: self._at]
                more, data = self._feed_image(begun)
                decoded += more
            if len(self._rest) > MAX_JSON_SIZE:
                raise MalformedResponseError(f"more than {MAX_JSON_SIZE} bytes beside the picture")
        return decoded

    def finish(self) -> Envelope:
        """The answer without its picture. Raises `GarbledError` if it is not whole or not the promised kind of JSON."""
        if not self.is_complete:
            raise MalformedResponseError(
                "the answer was cut short" if self._rest.strip(_SPACE) else "the answer was empty"
            )
        text = self._rest.removeprefix(_BOM).decode("utf-8", "replace").lstrip()
        try:
            answer, _ = json.JSONDecoder(strict=False).raw_decode(text)
        except ValueError as error:
            raise MalformedResponseError("the answer is not JSON") from error
        # it begins with a brace
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
        self._in_picture = False
        self._rest += self._image_parser.raw_url + b'"'
        self._at = len(self._rest)
        return decoded, behind

    def _scan(self) -> None:
        """Goes on through the structure, up to the end of what came or to the beginning of the picture."""
        while self._at < len(self._rest) and not self._in_picture and not self.is_complete:
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
        """Goes on in a string; false: its end has not come."""
        match = _STRING_BODY.match(self._rest, self._at)
        assert match is not None, "the pattern matches nothing, too"
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
                raise MalformedResponseError(f"more than {MAX_DEPTH} objects in each other")
        elif mark in b"}]":
            self._close_bracket(mark)
        elif mark == b":":
            self._is_key = False
        elif mark == b",":
            self._is_key = bytes(self._open_brackets[-1:]) == b"{"
        elif not self._is_key and self._key_path == [b'"data"', b'"image"']:
            if self._image_parser is not None:
                raise MalformedResponseError("data.image came twice")
            self._image_parser, self._in_picture = _ImageStringParser(), True
        else:
            self._string_start = self._at - 1

    def _close_bracket(self, mark: bytes) -> None:
        if bytes(self._open_brackets[-1:]) != (b"{" if mark == b"}" else b"["):
            raise MalformedResponseError("brackets that do not match")
        del self._open_brackets[-1:], self._key_path[-1:]
        self._is_key = False
        self.is_complete = not self._open_brackets


def _unescape_ascii(text: bytes) -> bytes:
    """The inside of a JSON string. Raises ValueError if that is no ASCII text."""
    if b"\\" not in text:
        return text
    return cast("str", json.loads(f'"{text.decode("ascii")}"', strict=False)).encode("ascii")


def _normalize_key(text: bytes) -> bytes:
    """A key in one spelling, as a key may be written with escapes."""
    return json.dumps(_load_string(text)).encode() if b"\\" in text else text


def _load_string(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)
    except ValueError as error:
        raise MalformedResponseError("an illegal string") from error
