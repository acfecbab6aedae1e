"""A program that makes one image small enough for PicWish: bytes in at stdin, bytes out at stdout.

`downscale` starts it as a process, because a decoder may need a gigabyte, loop or crash on untrusted bytes; then this
process ends, and the daemon goes on. It imports no other module of picwish-watchd, so that it starts fast and from
anywhere. Its exit code is one of `ExitCode`.

The image keeps its look. The colour profile is kept if it describes the pixels that are sent. The orientation (EXIF or
TIFF) is applied to the pixels, because some readers of PNG and WebP ignore the tag. Other metadata is dropped.
"""

import ctypes
import io
import os
import resource
import signal
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import BinaryIO

from PIL import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
#: Quality of JPEG and WebP. Above 95 a file grows and the image does not improve (Pillow's handbook).
_MAX_QUALITY, _MIN_QUALITY = 95, 50
# From prctl(2).
_PR_SET_PDEATHSIG = 1
#: How often the image is made smaller still if no quality fits.
_MAX_RESIZES = 16

#: EXIF 2.32, tag 274: how the stored pixels must be turned.
_ORIENTATION = 274
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: ICC.1:2022, 7.2.6: the colour space that a profile describes, and the Pillow modes of it.
_PROFILE_MODES = {b"GRAY": ("L", "LA", "I;16"), b"RGB ": ("RGB", "RGBA"), b"CMYK": ("CMYK",)}


class ExitCode(IntEnum):
    """How the process ended. Python itself uses 1, for an unexpected exception."""

    DOWNSCALED = 0
    NO_MEMORY = 3
    TRUNCATED = 4
    CORRUPT = 5
    TOO_MANY_PIXELS = 6
    #: Not an image of 8 or 16 bits a channel in a colour space that can be sent.
    UNSUPPORTED_PIXELS = 7
    NOTHING_FITS = 8
    #: The disk is full.
    NOT_WRITTEN = 9
    #: The process that started this one has ended.
    ORPHANED = 10


class DownscaleError(Exception):
    """The image cannot be made smaller."""

    def __init__(self, ending: ExitCode) -> None:
        super().__init__(ending.name)
        self.exit_code = ending


def downscale_stream(stream: BinaryIO, *, max_side: int, max_bytes: int, max_pixels: int) -> bytes:
    """Return the first image in ``stream`` with no side longer than ``max_side``, in at most ``max_bytes`` bytes.

    It is never enlarged. JPEG stays JPEG and WebP stays WebP. PNG, TIFF and BMP become PNG, or if that is too large
    JPEG (WebP if something is transparent). CMYK becomes JPEG. The best quality up to 95 that fits is used; if even 50
    does not fit, the image is made smaller still. Raises `DownscaleError`, also above ``max_pixels``, and MemoryError.
    """
    with Image.open(stream, formats=_FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise DownscaleError(ExitCode.TOO_MANY_PIXELS)
        source, profile = image.format or "", image.info.get("icc_profile")
        wanted = _scale_to_side(image.size, max_side)
        turn = _TRANSPOSES.get(image.getexif().get(_ORIENTATION, 1))
        # Of a JPEG only an eighth, a quarter or a half is decoded if that is enough.
        image.draft(None, wanted)
        image.load()
        # Pillow turns a TIFF while it loads it.
        if image.format == "TIFF":
            turn, wanted = None, _scale_to_side(image.size, max_side)
        picture = _normalize_mode(image)
    # Free the decoded pixels before more are made.
    del image
    if picture.size != wanted:
        picture = picture.resize(wanted, Image.Resampling.LANCZOS)
    if turn is not None:
        picture = picture.transpose(turn)
    for _ in range(_MAX_RESIZES):
        smallest = 0
        for data in _iter_encodings(picture, source, profile, max_bytes):
            if len(data) <= max_bytes:
                return data
            smallest = len(data)
        share = min(0.9, (max_bytes / smallest) ** 0.5)
        side = max(1, int(max(picture.size) * share))
        picture = picture.resize(_scale_to_side(picture.size, side), Image.Resampling.LANCZOS)
    raise DownscaleError(ExitCode.NOTHING_FITS)


def _scale_to_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    share = min(1.0, side / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _normalize_mode(image: Image.Image) -> Image.Image:
    """Return the image in a mode that can be resized and sent: no palette, no colour that means "transparent"."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" in image.info:
        mode = "LA" if mode == "L" else "RGBA"
    elif mode == "1":
        mode = "LA" if "transparency" in image.info else "L"
    elif mode in ("P", "PA"):
        mode = "RGBA" if image.has_transparency_data else "RGB"
    elif mode in ("RGBa", "La"):
        mode = mode.upper()
    elif mode in ("RGBX", "YCbCr"):
        mode = "RGB"
    elif mode in ("I;16B", "I;16L", "I;16N"):
        image, mode = image.convert("I"), "I;16"
    if mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "I;16"):
        raise DownscaleError(ExitCode.UNSUPPORTED_PIXELS)
    # Without a copy where possible: it may have 800 MB.
    return image if mode == image.mode else image.convert(mode)


def _iter_encodings(picture: Image.Image, source: str, profile: bytes | None, max_bytes: int) -> Iterator[bytes]:
    """Yield encoded images, the best first; the last is the best that fits, or the smallest if none does."""
    if source in ("PNG", "TIFF", "BMP") and picture.mode != "CMYK":
        data = _encode_image(picture, "PNG", profile)
        yield data
        if len(data) < max_bytes * 1.1:
            yield _encode_image(picture, "PNG", profile, compress_level=9)
    if picture.mode == "I;16":
        picture = picture.point([each >> 8 for each in range(2**16)], "L")
    transparent = picture.mode in ("LA", "RGBA")
    if source == "WEBP" or transparent:
        picture, name, options = picture.convert("RGBA" if transparent else "RGB"), "WEBP", {}
    else:
        name, options = "JPEG", {"subsampling": 0}
    yield (best := _encode_image(picture, name, profile, quality=_MAX_QUALITY, **options))
    smallest = _encode_image(picture, name, profile, quality=_MIN_QUALITY, **options) if len(best) > max_bytes else best
    low, high = _MIN_QUALITY, _MAX_QUALITY
    if len(smallest) <= max_bytes:
        while high - low > 1:
            middle = (low + high) // 2
            data = _encode_image(picture, name, profile, quality=middle, **options)
            if len(data) <= max_bytes:
                low, smallest = middle, data
            else:
                high = middle
    yield smallest


def _encode_image(picture: Image.Image, name: str, profile: bytes | None, **options: int) -> bytes:
    """Return the image as a file, with the profile only if it describes these pixels."""
    sink = io.BytesIO()
    fits = profile is not None and picture.mode in _PROFILE_MODES.get(profile[16:20], ())
    picture.info.clear()
    picture.save(sink, name, icc_profile=profile if fits else None, **options)
    return sink.getvalue()


def _die_with_parent(parent: int) -> bool:
    """Let the kernel end this process together with ``parent``, a process ID; return whether that still runs.

    More exactly, it ends with the thread that started it (prctl(2)), which waits for it. Without this, the process
    would go on working for nobody after the daemon was killed.
    """
    # If libc has no prctl, the resource limits end this process in time.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def _limit_resources(memory: int, seconds: int) -> None:
    """Limit this process (setrlimit(2)): ``memory`` bytes of address space, CPU ``seconds``, no core dumps."""
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def main(arguments: list[str]) -> ExitCode:
    """Limit this process, then read an image from stdin and write a smaller one to stdout.

    The arguments are ``max_side max_bytes max_pixels memory seconds parent``, all decimal numbers.
    """
    max_side, max_bytes, max_pixels, memory, seconds, parent = map(int, arguments)
    if not _die_with_parent(parent):
        return ExitCode.ORPHANED
    _limit_resources(memory, seconds)
    warnings.simplefilter("ignore")
    # The limit is ``max_pixels`` instead.
    Image.MAX_IMAGE_PIXELS = None
    try:
        data = downscale_stream(sys.stdin.buffer, max_side=max_side, max_bytes=max_bytes, max_pixels=max_pixels)
    except DownscaleError as error:
        return error.exit_code
    except MemoryError:
        return ExitCode.NO_MEMORY
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        return ExitCode.TRUNCATED if "truncated" in str(error) else ExitCode.CORRUPT
    except (RuntimeError, AssertionError, EOFError, struct.error, zlib.error):
        return ExitCode.CORRUPT
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError:
        return ExitCode.NOT_WRITTEN
    return ExitCode.DOWNSCALED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
