"""Pictures of noise, which no format compresses: each like the last, and none with the same bytes."""

import io
import random

from PIL import Image


def noise_jpeg(width: int, height: int, *, quality: int) -> bytes:
    """A JPEG of random RGB pixels; equal for equal arguments."""
    pixels = random.Random(0).randbytes(width * height * 3)
    sink = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(sink, "JPEG", quality=quality, subsampling=0)
    return sink.getvalue()


def enlarged_noise_image(width: int, height: int, kind: str) -> bytes:
    """A JPEG or PNG of noise that was enlarged four times, and so has as little detail as a scan."""
    small = width // 4, height // 4
    pixels = random.Random(0).randbytes(small[0] * small[1] * 3)
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    sink = io.BytesIO()
    Image.frombytes("RGB", small, pixels).resize((width, height)).save(sink, kind, **options)
    return sink.getvalue()


def make_unique(jpeg: bytes, number: int) -> bytes:
    """The same picture with a comment behind its first marker (ITU T.81, B.2.4.5): other bytes, another hash."""
    text = f"benchmark picture {number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]
