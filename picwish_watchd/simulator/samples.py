"""Draw small sample pictures for the demo, each different from the others."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

_SKY, _DUSK, _SEA, _HILL = (126, 178, 221), (242, 178, 122), (38, 92, 128), (66, 110, 74)


def draw_samples(folder: Path) -> list[Path]:
    """Draw five pictures in five formats below ``folder`` and return their paths."""
    (folder / "Été 2019").mkdir()
    harbour = _draw_scene(_SKY, _SEA, sun=(70, 60))
    evening = _draw_scene(_DUSK, (96, 66, 88), sun=(230, 110))
    hills = _draw_scene((206, 222, 232), _HILL, sun=(180, 50))
    pictures: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("harbour.jpg", harbour, {"quality": 82}),
        ("Evening Scan.PNG", evening, {}),
        ("hills.webp", hills, {"quality": 80}),
        ("Été 2019/plate.tif", evening.convert("L").convert("RGB"), {"compression": "tiff_lzw"}),
        ("thumbnail.bmp", harbour.resize((160, 120)), {}),
    ]
    paths = []
    for name, picture, options in pictures:
        path = folder / name
        picture.save(path, **options)
        paths.append(path)
    return paths


def _draw_scene(above: tuple[int, int, int], below: tuple[int, int, int], sun: tuple[int, int]) -> Image.Image:
    """Draw sky, sun, hills and a sailing boat, blurred like an old scan."""
    width, height, horizon = 320, 240, 150
    picture = Image.new("RGB", (width, height), above)
    draw = ImageDraw.Draw(picture)
    for y in range(horizon):
        share = y / horizon
        draw.line((0, y, width, y), fill=tuple(round(c + (250 - c) * share * 0.6) for c in above))
    x, y = sun
    draw.ellipse((x - 22, y - 22, x + 22, y + 22), fill=(255, 244, 204))
    draw.polygon([(0, 150), (60, 104), (128, 140), (190, 92), (262, 138), (320, 112), (320, 150)], fill=below)
    for y in range(horizon, height):
        share = (y - horizon) / (height - horizon)
        draw.line((0, y, width, y), fill=tuple(round(c * (1.15 - 0.5 * share)) for c in below))
    draw.polygon([(150, 186), (150, 124), (192, 182)], fill=(250, 248, 240))
    draw.polygon([(128, 190), (206, 190), (192, 204), (140, 204)], fill=(120, 60, 44))
    return picture.filter(ImageFilter.GaussianBlur(0.8))
