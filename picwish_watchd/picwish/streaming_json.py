"""An answer's JSON, read as it arrives: a base64 picture is decoded and turned aside, the rest is parsed at the end.

A result of 50 MB never stands in memory: only the string at ``data.image`` is treated so, and only pieces of it.
"""

import binascii
import json
import re
from dataclasses import dataclass
from typing import cast

from picwish_watchd.picwish.task_info import read_task_id, whole_number

MAX_REST = 1024 * 1024  #: bytes of an answer beside the picture
MAX_ADDRESS = 16 * 1024  #: bytes of a picture's address, as it stands in the JSON
MAX_DEPTH = 64  #: objects and arrays in each other

_HEAD = 512  #: bytes of ``data.image`` that tell an address from base64
_TO_QUOTE = re.compile(rb'(?:[^"\\]++|\\(?:u[0-9a-fA-F]{4}|[^u]))*+')
_MARK = re.compile(rb'[{}\[\]:,"]')
_SCHEME = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*:")
_LONGEST_ESCAPE = 6
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


class GarbledError(Exception):
    """This is not the JSON that was promised; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An answer without its picture (API document, "Return Parameters")."""

    status: int | None
    message: str
    data: dict[str, object]
    image: str | None  #: ``data.image``, if it is an address


class Base64Decoder:
    """Decodes base64 in pieces (RFC 4648): both alphabets, white space anywhere, padding may be missing."""

    _STANDARD = bytes.maketrans(b"-_", b"+/")

    def __init__(self) -> None:
        self._rest = b""
        self._padding = 0

    def feed(self, text: bytes) -> bytes:
        """The bytes that are complete now. Raises ValueError for what is not base64."""
        text = text.translate(self._STANDARD, _SPACE)
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


class _Picture:
    """The string at ``data.image``: an address is kept as it stands, base64 is decoded."""

    def __init__(self) -> None:
        self.address = b""  #: as it stands in the JSON
        self.began = False  #: base64 came
        self.flaw: str | None = None
        self._head: bytes | None = b""
        self._pending = b""
        self._prefixed = False
        self._decoder: Base64Decoder | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The decoded bytes, and what stood behind the closing quote (None: that has not come)."""
        data = self._pending + data
        match = _TO_QUOTE.match(data)
        assert match is not None, "the pattern matches nothing, too"
        text, rest = match[0], data[match.end() :]
        closed = rest[:1] == b'"'
        self._pending = b"" if closed else rest
        if len(self._pending) >= _LONGEST_ESCAPE:
            raise GarbledError("an illegal escape in data.image")
        return self._take(text, closed=closed), rest[1:] if closed else None

    def _take(self, text: bytes, *, closed: bool) -> bytes:
        if self.flaw is not None:
            return b""
        try:
            decoded = self._text(text, closed=closed)
            if closed and self._decoder is not None:
                decoded += self._decoder.finish()
        except ValueError as error:
            self.flaw = f"the picture is not valid base64 ({error})"
            return b""
        self.began = self.began or bool(decoded)
        return decoded

    def _text(self, text: bytes, *, closed: bool) -> bytes:
        if self._head is not None:
            self._head += text
            if len(self._head) < _HEAD and not closed:
                return b""
            text, self._head = self._head, None
            self._decide(_unescaped(text))
        if self._decoder is not None:
            return self._decoder.feed(self._after_prefix(_unescaped(text)))
        self.address += text
        if len(self.address) > MAX_ADDRESS:
            self.address, self.flaw = b"", f"the picture's address has more than {MAX_ADDRESS} characters"
        return b""

    def _decide(self, head: bytes) -> None:
        head = head.lstrip(_SPACE)
        if head and (not _SCHEME.match(head) or head[:5].lower() == b"data:"):
            self._decoder = Base64Decoder()
            self._prefixed = head[:5].lower() == b"data:"

    def _after_prefix(self, text: bytes) -> bytes:
        """Without the ``data:image/...;base64,`` (RFC 2397) that may stand before the first piece."""
        if not self._prefixed:
            return text
        self._prefixed = False
        prefix, comma, rest = text.partition(b",")
        if not comma or not prefix.lower().rstrip().endswith(b";base64"):
            raise ValueError("a data: prefix without ;base64")
        return rest


class AnswerReader:
    """Reads one answer. Whatever breaks, what was read until then can be asked for: above all ``task_id``."""

    def __init__(self) -> None:
        self.complete = False  #: the JSON object is closed; what follows is ignored
        self.task_id: str | None = None  #: the string at ``data.task_id``, known as soon as it was read
        self._rest = bytearray()
        self._at = 0  # up to here the rest is scanned
        self._string: int | None = None  # where the string begins that is being scanned
        self._is_key = False
        self._open = bytearray()  # the brackets that are open
        self._keys: list[bytes] = []  # the key at each of them, as JSON
        self._picture: _Picture | None = None
        self._in_picture = False

    @property
    def flaw(self) -> str | None:
        """What is wrong with the picture."""
        return None if self._picture is None else self._picture.flaw

    @property
    def picture_began(self) -> bool:
        """Bytes of a base64 picture came."""
        return self._picture is not None and self._picture.began

    @property
    def picture_whole(self) -> bool:
        """A base64 picture came from its first to its last letter."""
        return self.picture_began and self.flaw is None and not self._in_picture

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes, cut anywhere, and gives the bytes of the picture that they bring.

        Raises:
            GarbledError: this cannot become an answer any more.
        """
        decoded = b""
        if self._in_picture:
            decoded, data = self._picture_goes_on(data)
        while data and not self.complete:
            self._rest += data
            data = b""
            self._scan()
            if self._in_picture:
                begun, self._rest = bytes(self._rest[self._at :]), self._rest[: self._at]
                more, data = self._picture_goes_on(begun)
                decoded += more
            if len(self._rest) > MAX_REST:
                raise GarbledError(f"more than {MAX_REST} bytes beside the picture")
        return decoded

    def finish(self) -> Envelope:
        """The answer without its picture. Raises `GarbledError` if it is not whole or not the promised kind of JSON."""
        if not self.complete:
            raise GarbledError("the answer was cut short" if self._rest.strip(_SPACE) else "the answer was empty")
        text = self._rest.removeprefix(_BOM).decode("utf-8", "replace").lstrip()
        try:
            answer, _ = json.JSONDecoder(strict=False).raw_decode(text)
        except ValueError as error:
            raise GarbledError("the answer is not JSON") from error
        answer = cast("dict[str, object]", answer)  # it begins with a brace
        message, data = answer.get("message"), answer.get("data")
        data = data if isinstance(data, dict) else {}
        image = data.pop("image", None)
        return Envelope(
            status=whole_number(answer.get("status")),
            message=message if isinstance(message, str) else "",
            data=data,
            image=image.strip() or None if isinstance(image, str) else None,
        )

    def _picture_goes_on(self, data: bytes) -> tuple[bytes, bytes]:
        assert self._picture is not None
        decoded, behind = self._picture.feed(data)
        if behind is None:
            return decoded, b""
        self._in_picture = False
        self._rest += self._picture.address + b'"'
        self._at = len(self._rest)
        return decoded, behind

    def _scan(self) -> None:
        """Goes on through the structure, up to the end of what came or to the beginning of the picture."""
        while self._at < len(self._rest) and not self._in_picture and not self.complete:
            if self._string is not None:
                if not self._scan_string(self._string):
                    return
                continue
            mark = _MARK.search(self._rest, self._at)
            if not self._open:
                self._check_start(mark.start() if mark else len(self._rest))
            self._at = len(self._rest) if mark is None else mark.end()
            if mark is not None:
                self._scan_mark(mark[0])

    def _check_start(self, until: int) -> None:
        start = bytes(self._rest[:until]).removeprefix(_BOM).strip(_SPACE)
        brace = bytes(self._rest[until : until + 1]) in (b"{", b"")
        if not brace or (start and not _BOM.startswith(start)):
            raise GarbledError("the answer is not a JSON object")

    def _scan_string(self, start: int) -> bool:
        """Goes on in a string; false: its end has not come."""
        match = _TO_QUOTE.match(self._rest, self._at)
        assert match is not None, "the pattern matches nothing, too"
        self._at = match.end()
        if bytes(self._rest[self._at : self._at + 1]) != b'"':
            if len(self._rest) - self._at >= _LONGEST_ESCAPE:
                raise GarbledError("an illegal escape")
            return False
        self._at += 1
        self._string = None
        if self._is_key:
            self._keys[-1] = _plain_key(bytes(self._rest[start : self._at]))
        elif self._keys == [b'"data"', b'"task_id"']:
            self.task_id = read_task_id(_loaded(bytes(self._rest[start : self._at])))
        return True

    def _scan_mark(self, mark: bytes) -> None:
        if mark in b"{[":
            self._open += mark
            self._keys.append(b"")
            self._is_key = mark == b"{"
            if len(self._open) > MAX_DEPTH:
                raise GarbledError(f"more than {MAX_DEPTH} objects in each other")
        elif mark in b"}]":
            self._close(mark)
        elif mark == b":":
            self._is_key = False
        elif mark == b",":
            self._is_key = bytes(self._open[-1:]) == b"{"
        elif not self._is_key and self._keys == [b'"data"', b'"image"']:
            if self._picture is not None:
                raise GarbledError("data.image came twice")
            self._picture, self._in_picture = _Picture(), True
        else:
            self._string = self._at - 1

    def _close(self, mark: bytes) -> None:
        if bytes(self._open[-1:]) != (b"{" if mark == b"}" else b"["):
            raise GarbledError("brackets that do not match")
        del self._open[-1:], self._keys[-1:]
        self._is_key = False
        self.complete = not self._open


def _unescaped(text: bytes) -> bytes:
    """The inside of a JSON string. Raises ValueError if that is no ASCII text."""
    if b"\\" not in text:
        return text
    return cast("str", json.loads(f'"{text.decode("ascii")}"', strict=False)).encode("ascii")


def _plain_key(text: bytes) -> bytes:
    """A key in one spelling, as a key may be written with escapes."""
    return json.dumps(_loaded(text)).encode() if b"\\" in text else text


def _loaded(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)
    except ValueError as error:
        raise GarbledError("an illegal string") from error
