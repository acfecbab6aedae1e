"""Read link files: ``.url`` (Windows, freedesktop) and ``.webloc`` (macOS). Their URL is submitted, not fetched."""

import hashlib
import plistlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from picwish_watchd.fs.safe_open import NotRegularFile, OpenFile, classify_read_error, is_unmodified, open_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.job import ErrorCode, Problem, Stamp
from picwish_watchd.wording import printable_path

LINK_SUFFIXES = (".url", ".webloc")
#: Characters (API document: image_url).
MAX_URL_LENGTH = 512
#: Bytes. A link file has a few hundred.
_FILE_MAX = 64 * 1024
_SCHEMES = ("http", "https", "oss")
#: RFC 3986, 2: unreserved and reserved characters, and percent-encoded octets.
_URL_PATTERN = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_PLIST_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    ExpatError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class ValidLink:
    """A URL that can be submitted; ``sha256`` is that of the URL."""

    url: str
    sha256: str
    stamp: Stamp


def is_link_file(path: Path) -> bool:
    """Return whether the name is that of a link file; only the extension decides."""
    return path.suffix.lower() in LINK_SUFFIXES


def inspect_link(
    path: Path, *, follow_symlinks: bool = False, final: bool = False
) -> ValidLink | Incomplete | Rejected | Changed | Missing | Unreadable:
    """Return the verdict on a link file; its content never makes this raise.

    Valid are http, https and oss URLs of at most 512 characters, percent-encoded (API document: `image_url`, and
    "Guidelines and Limits" 3); everything else is rejected as `bad_request`. An empty file is `Incomplete`, or with
    ``final`` (it has not changed for `settle_timeout`) rejected.
    """
    opened = open_file(path, follow_symlinks=follow_symlinks)
    if isinstance(opened, NotRegularFile):
        return _reject(path, f"is {opened.file_type}, not a file", opened.stamp)
    if not isinstance(opened, OpenFile):
        return opened
    with opened:
        try:
            data = opened.read_at(0, _FILE_MAX)
            if not is_unmodified(path, opened, follow_symlinks=follow_symlinks):
                return Changed()
        except OSError as error:
            return classify_read_error(error)
    if opened.size > _FILE_MAX:
        return _reject(path, f"has {opened.size:,} bytes; a link file has at most {_FILE_MAX:,}", opened.stamp)
    if not data.strip(b"\0") and not final:
        return Incomplete(f"{printable_path(path.name)} is empty", opened.stamp)
    return _validate_link(path, data, opened.stamp)


def _validate_link(path: Path, data: bytes, stamp: Stamp) -> ValidLink | Rejected:
    url = _parse_webloc(data) if path.suffix.lower() == ".webloc" else _parse_url_file(data)
    if not url:
        return _reject(path, "holds no URL: save the link again", stamp)
    fault = _find_url_fault(url)
    if fault is not None:
        return _reject(path, fault, stamp)
    return ValidLink(url, hashlib.sha256(url.encode("ascii")).hexdigest(), stamp)


def _find_url_fault(url: str) -> str | None:
    """Return why PicWish would not accept this URL, or None. The text omits the URL, which may contain a signature."""
    if len(url) > MAX_URL_LENGTH:
        return f"holds a URL of {len(url)} characters; PicWish takes at most {MAX_URL_LENGTH}"
    if not _URL_PATTERN.fullmatch(url):
        return "holds a URL that is not percent-encoded: write a space as %20, an umlaut as its UTF-8 bytes (%C3%BC)"
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
        parts = None
    scheme = parts.scheme if parts else url.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        return f"holds a URL of the kind {printable_path(scheme) or 'none'}; PicWish takes http, https and oss"
    return None if has_host else "holds a URL without a valid host"


def _parse_url_file(data: bytes) -> str | None:
    """Return the URL of an ``[InternetShortcut]`` or a freedesktop ``[Desktop Entry]``; case does not matter."""
    section = ""
    for line in _decode_text(data).splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip().lower()
            continue
        key, equals, value = line.partition("=")
        if equals and key.strip().lower() == "url" and section in ("internetshortcut", "desktop entry"):
            return value.strip().strip('"')
    return None


def _parse_webloc(data: bytes) -> str | None:
    """Return the ``URL`` of a property list, XML or binary. plistlib refuses entity declarations."""
    try:
        plist = plistlib.loads(data)
    except _PLIST_ERRORS:
        return None
    url = plist.get("URL") if isinstance(plist, dict) else None
    return url.strip() if isinstance(url, str) else None


def _decode_text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _reject(path: Path, what: str, stamp: Stamp) -> Rejected:
    return Rejected(Problem(ErrorCode.BAD_REQUEST, f"{printable_path(path.name)} {what}"), stamp)
