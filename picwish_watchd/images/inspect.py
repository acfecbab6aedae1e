"""Validate an image file: its format, its size, whether it is complete, and its hash.

Accepted are JPEG (MPO included), PNG, WebP, BMP and TIFF as Pillow knows them, of any depth and colour space. Of
several pages or frames the first one counts. `completeness` checks the structure; Pillow decodes only if that check
leaves a doubt.
"""

import hashlib
import io
import os
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from picwish_watchd.fs.safe_open import (
    READ_BLOCK_SIZE,
    NotRegularFile,
    OpenFile,
    StructureError,
    classify_read_error,
    is_unmodified,
    open_file,
    sha256_of,
)
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.completeness import StructureDefect, check_structure
from picwish_watchd.images.formats import HEAD_SIZE, Format, can_become_image, describe_text, detect_format
from picwish_watchd.images.tiff import read_first_size
from picwish_watchd.job import ErrorCode, Problem, Result, Stamp
from picwish_watchd.wording import printable_path

_PILLOW_NAMES = {
    Format.JPEG: JpegImagePlugin.JpegImageFile.format,
    Format.PNG: PngImagePlugin.PngImageFile.format,
    Format.WEBP: WebPImagePlugin.WebPImageFile.format,
    Format.BMP: BmpImagePlugin.BmpImageFile.format,
    Format.TIFF: TiffImagePlugin.TiffImageFile.format,
}

#: What Pillow's decoders raise on damaged files, as found by fuzzing and in its own tests.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

#: One decode at a time: it takes some hundred MB, and Pillow's warnings can only be silenced for the whole process.
_DECODE_LOCK = threading.Lock()


#: The largest image that is made smaller: a sheet of A2 at 600 dpi (pixels), and its uncompressed TIFF (bytes).
DOWNSCALE_MAX_PIXELS = 200_000_000
DOWNSCALE_MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that PicWish accepts."""

    max_bytes: int
    #: Pixels, of width and of height.
    max_side: int
    #: Accept images up to `DOWNSCALE_MAX_PIXELS` and `DOWNSCALE_MAX_BYTES`; they are made smaller before sending.
    allow_downscale: bool = False

    def is_exceeded_by(self, size: int, width: int, height: int) -> bool:
        """Return whether an image of ``size`` bytes and this many pixels is larger than PicWish accepts."""
        return size > self.max_bytes or max(width, height) > self.max_side


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image that can be submitted, as it is or (`ImageLimits.allow_downscale`) after it was made smaller."""

    format: Format
    #: Pixels.
    width: int
    #: Pixels.
    height: int
    #: Bytes.
    size: int
    #: Hexadecimal, of exactly the bytes that were validated.
    sha256: str
    stamp: Stamp


ImageVerdict = ValidImage | Incomplete | Rejected | Changed | Missing | Unreadable


def inspect_image(
    path: Path, limits: ImageLimits, *, follow_symlinks: bool = False, decode: bool = False
) -> ImageVerdict:
    """Return the verdict on the image at ``path``; its content never makes this raise.

    ``decode`` is for a file that has not changed for `settle_timeout`. It is then never `Incomplete`: a full decode
    decides between valid, `truncated` and `corrupt`. An image beyond ``limits`` is never decoded here, but only by the
    process that makes it smaller.
    """
    opened = open_file(path, follow_symlinks=follow_symlinks)
    if isinstance(opened, NotRegularFile):
        return _reject(ErrorCode.NOT_AN_IMAGE, path, f"is {opened.file_type}, not a file", opened.stamp)
    if not isinstance(opened, OpenFile):
        return opened
    with opened:
        try:
            verdict = _inspect_open_file(path, opened, limits, decode=decode)
            return verdict if is_unmodified(path, opened, follow_symlinks=follow_symlinks) else Changed()
        except OSError as error:
            return classify_read_error(error)


def read_verified(
    path: Path, sha256: str, size: int, *, follow_symlinks: bool = False
) -> bytearray | Changed | Missing | Unreadable:
    """Return the bytes of the file if they are those that were validated: ``size`` bytes with that hash.

    The file is read once, in blocks of 1 MiB, and exactly the returned bytes are hashed.
    """
    opened = open_file(path, follow_symlinks=follow_symlinks)
    if isinstance(opened, NotRegularFile):
        return Changed()
    if not isinstance(opened, OpenFile):
        return opened
    with opened:
        if opened.size != size:
            return Changed()
        try:
            return _read_and_verify(opened, sha256)
        except OSError as error:
            return classify_read_error(error)


def inspect_result(path: Path) -> Result | str:
    """Return the facts of a downloaded result, or why it is none: empty, truncated, a web page, a foreign format.

    There are no limits of bytes or pixels. Raises OSError if the file cannot be read, which says nothing about the
    result.
    """
    opened = open_file(path)
    if isinstance(opened, NotRegularFile):
        return f"the result is {opened.file_type}"
    if not isinstance(opened, OpenFile):
        raise OSError(f"{path}: {opened}")
    with opened:
        head = opened.read_at(0, HEAD_SIZE)
        kind = detect_format(head)
        if not isinstance(kind, Format):
            return f"the result is {_describe_content(kind, head)}"
        structure = check_structure(opened, kind)
        if isinstance(structure, StructureDefect):
            return f"the result is not a whole {kind.name} image: {structure.reason}"
        if structure.foreign_format is not None:
            return f"the result is {structure.foreign_format}"
        return Result(kind.value, structure.width, structure.height, opened.size, sha256_of(opened))


def _inspect_open_file(
    path: Path, file: OpenFile, limits: ImageLimits, *, decode: bool
) -> ValidImage | Incomplete | Rejected:
    file = file.with_prefetched_head()
    head = file.read_at(0, HEAD_SIZE)
    kind = detect_format(head)
    if not isinstance(kind, Format):
        return _classify_non_image(path, file, kind, head, final=decode)
    if file.size > (DOWNSCALE_MAX_BYTES if limits.allow_downscale else limits.max_bytes):
        return _reject_size(path, limits, file)
    written = file.clip_at_hole()
    facts = check_structure(written, kind)
    if not decode and written.size < file.size and not isinstance(facts, StructureDefect):
        # The image is complete, but bytes written after it would change its hash, and it would be paid for again.
        return Incomplete(f"{printable_path(path.name)} is not whole: not all of it is written yet", file.stamp)
    if isinstance(facts, StructureDefect):
        if not decode:
            return Incomplete(f"{printable_path(path.name)} is not whole: {facts.reason}", file.stamp)
        size = _decode_size(path, file, kind, limits, facts)
        if isinstance(size, Rejected):
            return size
    elif facts.foreign_format is not None:
        return _reject_format(path, facts.foreign_format, file.stamp)
    else:
        size = (facts.width, facts.height)
    too_large = size[0] * size[1] > DOWNSCALE_MAX_PIXELS if limits.allow_downscale else max(size) > limits.max_side
    if too_large and limits.is_exceeded_by(file.size, *size):
        return _reject_resolution(path, size, limits, file.stamp)
    return ValidImage(kind, *size, file.size, sha256_of(file), file.stamp)


def _classify_non_image(
    path: Path, file: OpenFile, kind: str | None, head: bytes, *, final: bool
) -> Incomplete | Rejected:
    if kind is not None:
        return _reject_format(path, kind, file.stamp)
    if can_become_image(head):
        what = "is empty" if not head else "holds only zeros" if not head.strip(b"\0") else "has only begun"
        if not final:
            return Incomplete(f"{printable_path(path.name)} {what}", file.stamp)
        return _reject(ErrorCode.TRUNCATED, path, f"{what}: copy it again", file.stamp)
    return _reject(ErrorCode.NOT_AN_IMAGE, path, f"is {_describe_content(None, head)}", file.stamp)


def _describe_content(kind: str | None, head: bytes) -> str:
    if kind is not None:
        return f"{kind}, none of JPEG, PNG, WebP, BMP, TIFF"
    if not head:
        return "empty"
    text = describe_text(head)
    return f"{text}, not an image" if text else "not an image"


def _decode_size(
    path: Path, file: OpenFile, kind: Format, limits: ImageLimits, defect: StructureDefect
) -> tuple[int, int] | Rejected:
    """Decode the whole image unless it is too large; return width and height in pixels, or the rejection."""
    code = ErrorCode.TRUNCATED if defect.is_truncated else ErrorCode.CORRUPT
    rejected = _reject(code, path, f"is {code.value}: {defect.reason}; copy or export it again", file.stamp)
    if kind is Format.TIFF and file.size > limits.max_bytes:
        # The directory of a TIFF may be at its end. The process that makes it smaller decodes all of it.
        try:
            return read_first_size(file)
        except StructureError:
            return rejected
    with _DECODE_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Read into memory: libtiff would map the file, and get SIGBUS (mmap(2)) if somebody truncates it meanwhile.
        stream = io.BytesIO(file.read_at(0, min(file.size, limits.max_bytes)))
        try:
            with Image.open(stream, formats=[_PILLOW_NAMES[kind]]) as image:
                if limits.allow_downscale and limits.is_exceeded_by(file.size, *image.size):
                    return image.size
                if max(image.size) > limits.max_side:
                    return _reject_resolution(path, image.size, limits, file.stamp)
                image.load()
                return image.size
        except _DECODER_ERRORS:
            return rejected


def _read_and_verify(opened: OpenFile, sha256: str) -> bytearray | Changed:
    data = bytearray(opened.size)
    digest, filled = hashlib.sha256(), 0
    with memoryview(data) as view:
        while filled < len(data):
            count = os.preadv(opened.fd, [view[filled : filled + READ_BLOCK_SIZE]], filled)
            if count == 0:
                return Changed()
            digest.update(view[filled : filled + count])
            filled += count
    return data if digest.hexdigest() == sha256 and not os.pread(opened.fd, 1, filled) else Changed()


def _reject(code: ErrorCode, path: Path, what: str, stamp: Stamp) -> Rejected:
    return Rejected(Problem(code, f"{printable_path(path.name)} {what}"), stamp)


def _reject_format(path: Path, kind: str, stamp: Stamp) -> Rejected:
    text = f"is {kind}; PicWish takes JPEG, PNG, WebP, BMP and TIFF: convert it first"
    return _reject(ErrorCode.UNSUPPORTED_FORMAT, path, text, stamp)


def _reject_resolution(path: Path, size: tuple[int, int], limits: ImageLimits, stamp: Stamp) -> Rejected:
    text = f"has {size[0]} x {size[1]} pixels; PicWish takes at most {limits.max_side} x {limits.max_side}"
    if limits.allow_downscale:
        text += f", and oversize: downscale tries at most {DOWNSCALE_MAX_PIXELS // 10**6} million pixels"
    text += ": make it smaller first"
    return _reject(ErrorCode.RESOLUTION_TOO_HIGH, path, text, stamp)


def _reject_size(path: Path, limits: ImageLimits, file: OpenFile) -> Rejected:
    text = f"is {_describe_size(file.size, limits.max_bytes)}"
    if limits.allow_downscale:
        text += f", and oversize: downscale tries at most {DOWNSCALE_MAX_BYTES // 2**20} MiB"
    return _reject(ErrorCode.FILE_TOO_LARGE, path, f"{text}; make it smaller, for example as a JPEG", file.stamp)


def _describe_size(size: int, limit: int) -> str:
    """Return both numbers in one unit, with enough digits to tell them apart."""
    unit, name = (2**20, "MiB") if limit % 2**20 == 0 else (10**6, "MB")
    digits = next((each for each in (1, 3) if round(size / unit, each) > round(limit / unit, each)), 6)
    return f"{size / unit:.{digits}f} {name}; PicWish takes at most {limit / unit:g} {name}"
