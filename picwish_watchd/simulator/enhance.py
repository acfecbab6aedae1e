"""Enhance an image: enlarge and sharpen it, so that the result is real and recognisable.

JPEG, PNG and WebP keep their format; BMP and TIFF become PNG, which can hold all that they hold. Only the first frame
counts. The EXIF orientation is applied and EXIF is then left out. Transparency is kept, and the ICC profile if it
still fits the colours. Sixteen-bit and float grey becomes eight-bit.
"""

import os
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

#: Pixels of a result's longest side (our own limit: 8192 x 8192 takes about 1 GB of memory while it is made).
MAX_RESULT_SIDE = 8192
#: Pixels above which results are made one at a time, independent of the number of workers.
_LARGE_PIXELS = 16_000_000
_large_image_lock = threading.Lock()

_RESULT_FORMAT = {
    "JPEG": "JPEG",
    "MPO": "JPEG",
    "PNG": "PNG",
    "WEBP": "WEBP",
    "BMP": "PNG",
    "DIB": "PNG",
    "TIFF": "PNG",
}
_SUFFIX = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "DIB": "bmp", "TIFF": "tiff"}
_SAVE: dict[str, dict[str, int]] = {
    "JPEG": {"quality": 92},
    "PNG": {"compress_level": 1},
    "WEBP": {"quality": 92, "method": 2},
}
#: What Pillow raises for bytes that are not a whole image. Warning: if a caller turns warnings into errors.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Warning,
)
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class EnhanceError(Exception):
    """The image makes its task fail; ``state`` is PicWish's: -2 not stored, -5 too large, -7 invalid."""

    def __init__(self, state: int, message: str) -> None:
        super().__init__(message)
        self.state = state
        self.message = message


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in a file."""

    path: Path
    #: Pixels.
    width: int
    #: Pixels.
    height: int
    #: Bytes.
    size: int
    #: "jpg", "png" or "webp"; from `read_image_info` also "bmp" or "tiff"
    format: str


def read_image_info(source: Path, max_side: int) -> StoredImage:
    """Return the facts of a file from its head alone. Raises `EnhanceError`."""
    with _open(source, max_side) as image:
        return StoredImage(source, image.width, image.height, source.stat().st_size, _SUFFIX[_require_format(image)])


def enhance_image(source: Path, target: Path, *, enlarge: float, max_side: int, task_type: int) -> StoredImage:
    """Write the enlarged and sharpened image to ``target``. Blocks for seconds. Raises `EnhanceError`.

    The longest side becomes ``enlarge`` times as long, but at most 8192 pixels. Type 0 (Ultra HD) is sharpened more
    than type 1.
    """
    with _open(source, max_side) as image:
        factor = max(1.0, min(enlarge, MAX_RESULT_SIDE / max(image.size)))
        if image.width * image.height * factor**2 > _LARGE_PIXELS:
            with _large_image_lock:
                return _write_enhanced(image, target, factor, task_type)
        return _write_enhanced(image, target, factor, task_type)


def _open(source: Path, max_side: int) -> Image.Image:
    try:
        image = Image.open(source, formats=tuple(_SUFFIX.keys() - {"MPO"}))
    except _BOMB_ERRORS as error:
        raise EnhanceError(-5, f"the image has far more than {max_side} x {max_side} pixels") from error
    except _DECODE_ERRORS as error:
        raise EnhanceError(-7, "the file is not a jpg, png, webp, bmp or tiff image") from error
    if max(image.size) > max_side:
        image.close()
        size = f"{image.width} x {image.height}"
        raise EnhanceError(-5, f"the image has {size} pixels; at most {max_side} x {max_side} are accepted")
    return image


def _require_format(image: Image.Image) -> str:
    assert image.format is not None
    return image.format


def _write_enhanced(image: Image.Image, target: Path, factor: float, task_type: int) -> StoredImage:
    kind = _RESULT_FORMAT[_require_format(image)]
    try:
        upright = _to_eight_bit(ImageOps.exif_transpose(image))
    except _DECODE_ERRORS as error:
        raise EnhanceError(-7, "the image data is damaged or incomplete") from error
    size = (max(1, round(upright.width * factor)), max(1, round(upright.height * factor)))
    result = _sharpen(upright.resize(size, Image.Resampling.LANCZOS), percent=60 if task_type else 120)
    if kind == "JPEG" and result.mode != "L":
        result = result.convert("RGB")
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    try:
        result.save(target, kind, icc_profile=profile, **_SAVE[kind])
    except OSError as error:
        raise EnhanceError(-2, f"the result could not be stored: {error.strerror}") from error
    return StoredImage(target, *size, os.stat(target).st_size, _SUFFIX[kind])


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Return the image in mode L, RGB or RGBA: these can be resized, sharpened and saved in every format."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_eight_bit(image)
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def _grey_to_eight_bit(image: Image.Image) -> Image.Image:
    """Scale grey values to 8 bits: 16 bits by their range, 32 bits and floats by their brightest value.

    The range of the latter is not known.
    """
    grey = image.convert("F")
    brightest = grey.getextrema()[1]
    assert isinstance(brightest, float)
    ranges = (65535.0,) if image.mode.startswith("I;16") else (1.0, 256.0, 65535.0, max(1.0, brightest))
    scale = 255 / next(top for top in ranges if brightest <= top)
    return grey.point(lambda value: value * scale + 0.0).convert("L")


def _sharpen(image: Image.Image, percent: int) -> Image.Image:
    """Return the image with sharpened colours and unchanged transparency."""
    sharp = ImageFilter.UnsharpMask(radius=2, percent=percent, threshold=2)
    if image.mode != "RGBA":
        return image.filter(sharp)
    colours = image.convert("RGB").filter(sharp)
    colours.putalpha(image.getchannel("A"))
    return colours
