"""Detect the format of a file by its first bytes. Its name and extension are not used."""

from enum import StrEnum

#: Number of first bytes that `detect_format` needs.
HEAD_SIZE = 1024


class Format(StrEnum):
    """The formats that PicWish accepts (API document, "Guidelines and Limits" 5) and that results come in."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    TIFF = "tiff"

    @property
    def extension(self) -> str:
        """The usual extension, without the dot."""
        return self.extensions[0]

    @property
    def extensions(self) -> tuple[str, ...]:
        """All extensions in use, without their dots, the usual one first."""
        return _SUFFIXES[self]

    @property
    def mime(self) -> str:
        """The media type (IANA registry)."""
        return f"image/{self.value}"

    def allows_suffix(self, suffix: str) -> bool:
        """Return whether a file of this format may have the ``suffix``, given with or without its dot, in any case."""
        return suffix.removeprefix(".").lower() in _SUFFIXES[self]

    @classmethod
    def from_suffix(cls, suffix: str) -> "Format | None":
        """Return the format whose files have this suffix, or None if it is none of the five."""
        return next((kind for kind in cls if kind.allows_suffix(suffix)), None)


_SUFFIXES = {
    Format.JPEG: ("jpg", "jpeg", "jpe", "jfif"),
    Format.PNG: ("png",),
    Format.WEBP: ("webp",),
    Format.BMP: ("bmp", "dib", "bitmap"),
    Format.TIFF: ("tif", "tiff"),
}

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Sizes of the DIB header, in bytes, that have ever been in use.
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

#: Formats that are recognised but not accepted: offset, bytes there, and what to call it. The first match counts.
_FOREIGN_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF87a", "a GIF image"),
    (0, b"GIF89a", "a GIF image"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS image"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"II\xbc\x01", "a JPEG XR image"),
    (8, b"CR\x02", "a Canon camera raw file"),
    (0, b"IIRO", "an Olympus camera raw file"),
    (0, b"IIU\x00", "a Panasonic camera raw file"),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm camera raw file"),
    (0, b"FOVb", "a Sigma camera raw file"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"\x00\x00\x02\x00", "a cursor"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"DDS ", "a DirectDraw surface"),
    (0, b"qoif", "a QOI image"),
    (0, b"BPG\xfb", "a BPG image"),
    (0, b"\x8aMNG\r\n", "an MNG animation"),
    (0, b"AT&TFORM", "a DjVu document"),
    (128, b"DICM", "a DICOM image"),
    (8, b"AVI ", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)

#: Brands of the ISO base media file format (ISO/IEC 14496-12, 4.3) that are images; all others count as videos.
_FTYP_BRANDS = {
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"heim": "a HEIC image",
    b"heis": "a HEIC image",
    b"hevc": "a HEIC image",
    b"mif1": "a HEIF image",
    b"msf1": "a HEIF image",
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    b"crx ": "a Canon camera raw file",
}

_KNOWN_MAGIC = (
    b"\xff\xd8\xff",
    _PNG_MAGIC,
    b"BM",
    *_TIFF_MAGIC,
    *(magic for offset, magic, _ in _FOREIGN_MAGIC if offset == 0),
)


def detect_format(head: bytes) -> Format | str | None:
    """Return the format of a file that begins with ``head``, its first `HEAD_SIZE` bytes (fewer if it is shorter).

    The result is a `Format`, or the name of a known format that PicWish does not accept ("a GIF image"), or None.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if head.startswith(_PNG_MAGIC):
        return Format.PNG
    foreign = _detect_foreign(head)
    if foreign is not None:
        return foreign
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Format.WEBP
    if head.startswith(_TIFF_MAGIC):
        return Format.TIFF
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS and len(head) >= 18:
        return Format.BMP
    return None


def can_become_image(head: bytes) -> bool:
    """Return whether this unrecognised beginning may just be too short, or not written yet (a hole of zeros)."""
    if not head.strip(b"\0"):
        return True
    if head.startswith(b"BM") and len(head) < 18:
        return True
    if len(head) < 12 and (head.startswith(b"RIFF") or b"RIFF".startswith(head)):
        return True
    return any(len(head) < len(magic) and magic.startswith(head) for magic in _KNOWN_MAGIC)


def describe_text(head: bytes) -> str | None:
    """Return what kind of text this is ("an HTML page"), or None if it is not a text."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if start.startswith(b"<"):
        return "an XML document"
    if start.startswith((b"{", b"[")):
        return "a JSON document"
    if start and not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "a text"
    return None


def _detect_foreign(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return _FTYP_BRANDS.get(head[8:12], "a video")
    if b"<svg" in head.lower() and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "an SVG drawing"
    return next((name for offset, magic, name in _FOREIGN_MAGIC if head[offset:].startswith(magic)), None)
