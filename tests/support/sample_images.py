"""Sample images with gradients, shapes and noise, which compress like photographs. Equal arguments give equal bytes."""

import colorsys
import io
import random
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

#: Kind -> Pillow's format and its save options. Each kind has a colour of its own.
_SAVE_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 85}),
    "jpeg-progressive": ("JPEG", {"quality": 85, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 80}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
}
KINDS = tuple(_SAVE_OPTIONS)
#: One kind for each format that PicWish accepts.
BASIC_KINDS = ("jpeg", "png", "webp", "bmp", "tiff")
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "bmp": "bmp", "tiff": "tif"}


@lru_cache(maxsize=256)
def make_image(kind: str = "jpeg", width: int = 96, height: int = 64, *, seed: int = 0) -> bytes:
    """Return an image file of ``kind`` (one of `KINDS`), ``width`` x ``height`` pixels, varied by ``seed``."""
    return encode_image(draw_image(kind, width, height, seed=seed), kind)


def encode_image(image: Image.Image, kind: str) -> bytes:
    """Return an image encoded as a file of ``kind``."""
    name, options = _SAVE_OPTIONS[kind]
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


def draw_image(kind: str, width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Return an RGB image: a gradient in the colour of the kind, three shapes and some noise."""
    chance = random.Random(f"{kind}-{width}-{height}-{seed}")
    light, dark = _kind_colour(kind, 0.95), _kind_colour(kind, 0.35)
    gradient = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(Image.new("RGB", (width, height), light), Image.new("RGB", (width, height), dark), gradient)
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse):
        left, top = chance.randrange(width), chance.randrange(height)
        box = (left, top, left + 1 + width // 4, top + 1 + height // 4)
        shape(box, fill=tuple(chance.randrange(256) for _ in range(3)))
    grain = Image.frombytes("L", (width, height), chance.randbytes(width * height))
    return Image.blend(image, Image.merge("RGB", (grain, grain, grain)), 0.06)


def format_of(kind: str) -> str:
    """Return the format as jobs name it: "jpeg", "png", "webp", "bmp" or "tiff"."""
    return kind.split("-")[0]


def file_name(kind: str, stem: str = "picture") -> str:
    """Return a file name with the usual extension of ``kind``."""
    return f"{stem}.{EXTENSIONS[format_of(kind)]}"


def _kind_colour(kind: str, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(KINDS.index(kind) / len(KINDS), 0.8, value)
    return round(red * 255), round(green * 255), round(blue * 255)
