"""Unusual but valid images, as scanners, cameras and old programs write them; a decoder reads each of them."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image

from tests.support.sample_images import draw_image

SIZE = (24, 20)
_GRADIENT = Image.linear_gradient("L").resize(SIZE)
#: A grey gradient of 24 x 20 pixels, arithmetic-coded (ITU-T T.81, SOF9). Pillow reads such files but cannot write
#: them.
_ARITHMETIC_JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
    "UlNSMj5aYVpQYEpRUk//yQALCAAUABgBAREA/8wABgAQEAX/2gAIAQEAAD8A/wBwbh6WLfRyMVEO/wBAEX5If5NEZpiZhJeJUP/Z"
)


def unusual_images() -> dict[str, tuple[str, bytes]]:
    """Return name -> (format, file) of images that are accepted; each is 24 x 20 pixels, or its first page is."""
    rgb = draw_image("jpeg", *SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6
    float_ = Image.new("F", SIZE, 0.5)
    wide = Image.new("I;16", SIZE, 999)
    return {
        "CMYK JPEG": ("jpeg", save_image(rgb.convert("CMYK"), "JPEG")),
        "progressive JPEG": ("jpeg", save_image(rgb, "JPEG", progressive=True)),
        "arithmetic-coded JPEG": ("jpeg", base64.b64decode(_ARITHMETIC_JPEG)),
        "JPEG with restart markers": ("jpeg", save_image(rgb, "JPEG", restart_marker_rows=1)),
        "JPEG with an EXIF orientation": ("jpeg", save_image(rgb, "JPEG", exif=exif)),
        "JPEG with padding after its end": ("jpeg", save_image(rgb, "JPEG") + bytes(700)),
        "MPO": ("jpeg", save_image(rgb, "MPO", save_all=True, append_images=extra_frames())),
        "16-bit PNG": ("png", save_image(wide, "PNG")),
        "palette PNG": ("png", save_image(rgb.quantize(), "PNG")),
        "interlaced PNG": ("png", interlaced_png(_GRADIENT)),
        "APNG": ("png", save_image(rgb, "PNG", save_all=True, append_images=extra_frames())),
        "lossless WebP": ("webp", save_image(rgb, "WEBP", lossless=True)),
        "WebP with transparency": ("webp", save_image(rgb.convert("RGBA"), "WEBP", exif=exif)),
        "animated WebP": ("webp", save_image(rgb, "WEBP", save_all=True, append_images=extra_frames())),
        "1-bit BMP": ("bmp", save_image(rgb.convert("1"), "BMP")),
        "RLE BMP": ("bmp", rle_bmp(_GRADIENT)),
        "16-bit TIFF": ("tiff", save_image(wide, "TIFF")),
        "floating-point TIFF": ("tiff", save_image(float_, "TIFF")),
        "CMYK TIFF": ("tiff", save_image(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw")),
        "fax TIFF": ("tiff", save_image(rgb.convert("1"), "TIFF", compression="group4")),
        "JPEG-in-TIFF": ("tiff", save_image(rgb, "TIFF", compression="jpeg")),
        "tiled TIFF": ("tiff", tiled_tiff(_GRADIENT)),
        "BigTIFF": ("tiff", save_image(rgb, "TIFF", big_tiff=True)),
        "tiled BigTIFF": ("tiff", tiled_tiff(_GRADIENT, big=True)),
        "multi-page TIFF": ("tiff", save_image(rgb, "TIFF", save_all=True, append_images=extra_frames())),
    }


def unsupported_images() -> dict[str, bytes]:
    """Return name -> file of formats that PicWish does not accept.

    HEIC and JPEG XL are only the beginning of a file, because Pillow cannot write them.
    """
    rgb = draw_image("jpeg", *SIZE)
    return {
        "GIF": save_image(rgb.quantize(), "GIF"),
        "AVIF": save_image(rgb, "AVIF"),
        "JPEG 2000": save_image(rgb, "JPEG2000"),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl " + bytes(100),
        "DNG": save_image(rgb, "TIFF", tiffinfo={50706: b"\1\4\0\0"}),
    }


def extra_frames() -> list[Image.Image]:
    """Return two more images, as further frames or pages."""
    return [draw_image("webp", *SIZE, seed=seed) for seed in (1, 2)]


def save_image(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return the bytes of the file that Pillow writes."""
    sink = io.BytesIO()
    # Save a copy, because saving leaves encoder settings in the image.
    image.copy().save(sink, format, **options)
    return sink.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def interlaced_png(grey: Image.Image) -> bytes:
    """Return a PNG with Adam7 interlacing (PNG specification, section 8.2)."""
    width, height = grey.size
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    raw = grey.tobytes()
    lines = b"".join(
        b"\0" + raw[y * width + left : (y + 1) * width : dx]
        for left, top, dx, dy in passes
        for y in range(top, height, dy)
        if left < width
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rle_bmp(grey: Image.Image) -> bytes:
    """Return a BMP compressed with BI_RLE8: runs of pixels from the last row to the first."""
    width, height = grey.size
    raw, body = grey.tobytes(), b""
    for y in reversed(range(height)):
        body += b"".join(bytes([1, value]) for value in raw[y * width : (y + 1) * width]) + b"\0\0"
    body += b"\0\1"
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    start = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + palette + body


def tiled_tiff(grey: Image.Image, *, big: bool = False) -> bytes:
    """Return a TIFF with uncompressed tiles of 16 x 16 (TIFF 6.0, section 15); its directory precedes them."""
    width, height = grey.size
    boxes = [(x, y, x + 16, y + 16) for y in range(0, height, 16) for x in range(0, width, 16)]
    tiles = [grey.crop(box).tobytes() for box in boxes]
    word, kind = ("Q", 16) if big else ("I", 4)
    size = struct.calcsize("<" + word)
    entries = 10
    after = (16 + 8 + 20 * entries + 8) if big else (8 + 2 + 12 * entries + 4)
    data = after + 2 * size * len(tiles)
    tables = struct.pack(f"<{len(tiles)}{word}", *(data + 256 * number for number in range(len(tiles))))
    tables += struct.pack(f"<{len(tiles)}{word}", *([256] * len(tiles)))
    values = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, 16),
        (323, 4, 1, 16),
        (324, kind, len(tiles), after),
        (325, kind, len(tiles), after + size * len(tiles)),
    ]
    layout = "<HHQQ" if big else "<HHII"
    table = b"".join(struct.pack(layout, *entry) for entry in values)
    if big:
        head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, entries) + table + bytes(8)
    else:
        head = b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + table + bytes(4)
    return head + tables + b"".join(tiles)
