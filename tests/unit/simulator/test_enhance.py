"""Enhanced images are larger and sharper and show the same picture."""

import io
import random
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat

from picwish_watchd.simulator import enhance as room
from picwish_watchd.simulator.enhance import EnhanceError, StoredImage, enhance_image, read_image_info
from tests.unit.simulator.simulator_client import make_quartered_image


def enhance_bytes(tmp_path: Path, data: bytes, **options: float) -> tuple[StoredImage, Image.Image]:
    source = tmp_path / "source"
    source.write_bytes(data)
    result = enhance_image(
        source,
        tmp_path / "result",
        enlarge=options.get("enlarge", 2.0),
        max_side=int(options.get("max_side", 4096)),
        task_type=int(options.get("type", 0)),
    )
    assert result.size == result.path.stat().st_size
    with Image.open(result.path) as image:
        image.load()
        assert image.size == (result.width, result.height)
        return result, image


def colour_difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean distance of two images' colours, 0 to 255, at 8 x 8 pixels."""
    small = [image.convert("RGB").resize((8, 8), Image.Resampling.BOX) for image in (one, other)]
    return max(ImageStat.Stat(ImageChops.difference(*small)).mean)


@pytest.mark.parametrize(
    ("kind", "mode", "format"),
    [
        ("JPEG", "RGB", "jpg"),
        ("JPEG", "L", "jpg"),
        ("JPEG", "CMYK", "jpg"),
        ("MPO", "RGB", "jpg"),
        ("PNG", "RGB", "png"),
        ("PNG", "RGBA", "png"),
        ("PNG", "LA", "png"),
        ("PNG", "P", "png"),
        ("PNG", "1", "png"),
        ("PNG", "I;16", "png"),
        ("WEBP", "RGB", "webp"),
        ("WEBP", "RGBA", "webp"),
        ("BMP", "RGB", "png"),
        ("DIB", "RGB", "png"),
        ("TIFF", "RGB", "png"),
        ("TIFF", "CMYK", "png"),
        ("TIFF", "F", "png"),
        ("TIFF", "I", "png"),
    ],
)
def test_every_kind_is_enlarged_and_recognisable(tmp_path: Path, kind: str, mode: str, format: str) -> None:
    data = make_quartered_image(kind, (64, 48), mode)
    result, image = enhance_bytes(tmp_path, data)
    assert (result.width, result.height, result.format) == (128, 96, format)
    # Pillow's own conversion cuts sixteen bits off at 255; see the next test.
    if mode != "I;16":
        assert colour_difference(Image.open(io.BytesIO(data)), image) < (16 if mode == "1" else 6)


def test_sixteen_bit_and_float_greys_keep_their_brightness(tmp_path: Path) -> None:
    for mode, middle in (("I;16", 32768), ("I", 32768), ("F", 0.5), ("F", 128.0)):
        source = Image.new(mode, (16, 16), middle)
        source.putpixel((0, 0), 65535 if middle == 32768 else 2 * middle - 0.01)
        buffer = io.BytesIO()
        source.save(buffer, "TIFF")
        _, image = enhance_bytes(tmp_path, buffer.getvalue())
        assert image.getpixel((24, 24)) == pytest.approx(128, abs=2), (mode, middle)


def test_results_are_sharpened_and_ultra_hd_more_than_hd(tmp_path: Path) -> None:
    def contrast(type: int) -> float:
        _, image = enhance_bytes(tmp_path, make_quartered_image("PNG", (64, 48)), type=type)
        return float(ImageStat.Stat(image.convert("L")).stddev[0])

    plain = Image.open(io.BytesIO(make_quartered_image("PNG", (64, 48)))).resize((128, 96), Image.Resampling.LANCZOS)
    assert contrast(0) > contrast(1) > ImageStat.Stat(plain.convert("L")).stddev[0]


def test_transparency_is_kept(tmp_path: Path) -> None:
    source = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    source.paste((0, 0, 255, 255), (16, 0, 32, 32))
    for kind in ("PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        source.save(buffer, kind)
        _, image = enhance_bytes(tmp_path, buffer.getvalue())
        assert [image.getchannel("A").getpixel((x, 32)) for x in (4, 60)] == [0, 255]
    buffer = io.BytesIO()
    source.convert("P").save(buffer, "PNG", transparency=0)
    assert enhance_bytes(tmp_path, buffer.getvalue())[1].mode == "RGBA"


def test_exif_orientation_is_applied_and_left_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    # The image is rotated by a quarter.
    exif[0x0112] = 6
    result, image = enhance_bytes(tmp_path, make_quartered_image("JPEG", (64, 48), exif=exif))
    assert (result.width, result.height) == (96, 128)
    assert 0x0112 not in image.getexif()
    left_top = image.convert("RGB").getpixel((10, 10))
    assert isinstance(left_top, tuple)
    # Blue was at the bottom on the left.
    assert left_top[2] > 180 > 80 > left_top[0]


def test_the_icc_profile_is_kept_where_the_colours_still_fit_it(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert enhance_bytes(tmp_path, make_quartered_image("JPEG", icc_profile=profile))[1].info["icc_profile"] == profile
    assert (
        "icc_profile"
        not in enhance_bytes(tmp_path, make_quartered_image("TIFF", mode="CMYK", icc_profile=profile))[1].info
    )


def test_the_result_stays_within_8192_and_is_never_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert enhance_bytes(tmp_path, make_quartered_image("PNG", (4096, 2)), enlarge=9)[0].width == 8192
    assert enhance_bytes(tmp_path, make_quartered_image("PNG", (9000, 2)), max_side=9000)[0].width == 9000


def test_large_pictures_are_made_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_LARGE_PIXELS", 10)
    assert enhance_bytes(tmp_path, make_quartered_image())[0].width == 96
    assert not room._large_image_lock.locked()


def test_a_folder_that_is_gone_is_minus_2(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(make_quartered_image())
    with pytest.raises(EnhanceError) as caught:
        enhance_image(tmp_path / "source", tmp_path / "gone" / "result", enlarge=2, max_side=4096, task_type=0)
    assert caught.value.state == -2


@pytest.mark.untraced
def test_damaged_pictures_of_any_kind_are_refused_or_made_never_worse(tmp_path: Path) -> None:
    chance = random.Random(7)
    states = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        whole = make_quartered_image(kind)
        for _ in range(60):
            data = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
            for _ in range(chance.randrange(8)):
                data[chance.randrange(min(len(data), 300) or 1) : 0] = b""
                if data:
                    data[chance.randrange(len(data))] = chance.randrange(256)
            try:
                enhance_bytes(tmp_path, bytes(data), max_side=2000)
            except EnhanceError as error:
                states.append(error.state)
    assert len(states) > 100
    assert set(states) <= {-5, -7}


def test_inspect_reports_format_and_size(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for kind, format in (("JPEG", "jpg"), ("BMP", "bmp"), ("TIFF", "tiff"), ("WEBP", "webp"), ("PNG", "png")):
        source.write_bytes(make_quartered_image(kind))
        info = read_image_info(source, 48)
        assert (info.path, info.width, info.height, info.format) == (source, 48, 32, format)
    with pytest.raises(EnhanceError) as caught:
        read_image_info(source, 47)
    assert caught.value.state == -5
    assert "48 x 32" in caught.value.message
