"""Noise images, which no format compresses: all alike, and none with the same bytes."""

import io
import random

from PIL import Image


def noise_jpeg(width: int, height: int, *, quality: int) -> bytes:
    """Return a JPEG of random RGB pixels; equal arguments give equal bytes."""
    pixels = random.Random(0).randbytes(width * height * 3)
    sink = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(sink, "JPEG", quality=quality, subsampling=0)
    return sink.getvalue()


def enlarged_noise_image(width: int, height: int, kind: str) -> bytes:
    """Return a JPEG or PNG of noise that was enlarged four times, which has as little detail as a scan."""
    small = width // 4, height // 4
    pixels = random.Random(0).randbytes(small[0] * small[1] * 3)
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    sink = io.BytesIO()
    Image.frombytes("RGB", small, pixels).resize((width, height)).save(sink, kind, **options)
    return sink.getvalue()


def make_unique(jpeg: bytes, number: int) -> bytes:
    """Return the image with a comment after its first marker (ITU T.81, B.2.4.5), which changes its hash."""
    text = f"benchmark picture {number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]
