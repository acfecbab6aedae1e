"""Result names as users configure them, made valid for every file system and kept inside the outbox."""

import os
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.images.formats import Format
from picwish_watchd.outbox.filenames import NAME_MAX, add_number, make_portable, render_output_name, sidecar_name
from picwish_watchd.wording import printable_path

# File names have local time.
NOW = datetime(2026, 11, 5, 9, 8, 7)  # noqa: DTZ001


def build_output_name(template: str, relative: str = "cat.jpg", **facts: Any) -> str:
    arguments: dict[str, Any] = {
        "image_format": Format.JPEG,
        "rule": "scans",
        "task_type": 1,
        "task_id": "ab-12",
        "job_id": 7,
        "width": 2048,
        "height": 1024,
        "now": NOW,
        **facts,
    }
    return str(render_output_name(template, relative=Path(relative), **arguments))


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{stem}.{ext}", "cat.jpg"),
        ("{name}", "cat.jpg"),
        ("{stem}-{width}x{height}.{ext}", "cat-2048x1024.jpg"),
        ("{rule}/{date}/{time}_{job_id}_{task_id}_{type}.{ext}", "scans/2026-11-05/090807_7_ab-12_1.jpg"),
        ("{stem}{{x}}.{ext}", "cat{x}.jpg"),
    ],
)
def test_every_field_is_filled_in(template: str, name: str) -> None:
    assert build_output_name(template) == name


@pytest.mark.parametrize(
    ("relative", "image_format", "name"),
    [
        ("photo.JPEG", Format.JPEG, "photo.JPEG"),
        ("photo.jpg", Format.PNG, "photo.png"),
        ("photo.TIF", Format.TIFF, "photo.TIF"),
        ("photo.png", Format.TIFF, "photo.tif"),
        ("photo.bmp", Format.WEBP, "photo.webp"),
        ("photo", Format.BMP, "photo.bmp"),
        ("Product.url", Format.JPEG, "Product.jpg"),
        ("v1.2.final.jpg", Format.JPEG, "v1.2.final.jpg"),
    ],
)
def test_the_extension_is_the_originals_spelling_where_it_fits(relative: str, image_format: Format, name: str) -> None:
    assert build_output_name("{stem}.{ext}", relative, image_format=image_format) == name


@pytest.mark.parametrize(
    ("template", "image_format", "name"),
    [
        ("{stem}", Format.JPEG, "cat.jpg"),
        ("{name}", Format.PNG, "cat.jpg.png"),
        ("{stem}.jpg", Format.PNG, "cat.jpg.png"),
        ("{stem}.jpeg", Format.JPEG, "cat.jpeg"),
        ("{stem}.{job_id}", Format.JPEG, "cat.7.jpg"),
    ],
)
def test_an_extension_that_fits_is_added_where_the_template_gives_none(
    template: str, image_format: Format, name: str
) -> None:
    assert build_output_name(template, image_format=image_format) == name


def test_the_outbox_mirrors_the_inboxs_subfolders() -> None:
    assert build_output_name("{stem}/{job_id}.{ext}", "2026/May/cat.jpg") == "2026/May/cat/7.jpg"


@pytest.mark.parametrize("relative", ["../cat.jpg", "a/../../cat.jpg", "/etc/cat.jpg"])
def test_a_path_that_leaves_the_inbox_is_a_bug(relative: str) -> None:
    with pytest.raises(ValueError, match="not a path below an inbox"):
        build_output_name("{stem}.{ext}", relative)


@pytest.mark.parametrize("template", ["{nonsense}.{ext}", "{stem!r}.{ext}", "{width:05}.{ext}", "{}.{ext}"])
def test_a_template_that_the_configuration_should_have_refused_is_a_bug(template: str) -> None:
    with pytest.raises(ValueError, match="unknown field"):
        build_output_name(template)


def test_values_from_the_server_cannot_create_folders_or_dots() -> None:
    assert build_output_name("{task_id}.{ext}", task_id="../../etc/passwd\0\n") == "etcpasswd.jpg"
    assert build_output_name("{task_id}.{ext}", task_id="") == "_.jpg"
    assert build_output_name("{task_id}.{ext}", task_id=None) == "_.jpg"
    assert len(build_output_name("{task_id}.{ext}", task_id="x" * 999)) == 68


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("../{stem}.{ext}", "_./cat.jpg"),
        (".hidden/{stem}.{ext}", "_hidden/cat.jpg"),
        (".{stem}.{ext}", "_cat.jpg"),
        ("//{stem}.{ext}", "_/_/cat.jpg"),
        ("{stem}/", "cat/_.jpg"),
        (".{ext}", "_jpg.jpg"),
        ("a\0b.{ext}", "a_b.jpg"),
        ("\ud800.{ext}", "_.jpg"),
        ("-{stem}.{ext}", "-cat.jpg"),
    ],
)
def test_no_component_is_empty_hidden_or_dots(template: str, name: str) -> None:
    assert build_output_name(template) == name


def test_a_long_name_keeps_its_extension_and_its_characters_whole() -> None:
    assert build_output_name("{stem}.{ext}", "x" * 251 + ".jpg") == "x" * 251 + ".jpg"
    name = build_output_name("{stem}-{width}.{ext}", "ü" * 125 + ".jpeg")
    assert name == "ü" * 125 + ".jpeg"
    assert build_output_name("{stem}{stem}.{ext}", "ü" * 100 + ".jpg") == "ü" * 125 + ".jpg"
    assert build_output_name("{stem}-{stem}.{ext}", "x" * 200 + ".jpg") == "x" * 200 + "-" + "x" * 50 + ".jpg"
    assert len(build_output_name("{stem}.{ext}", "a." + "b" * 200 + ".png", image_format=Format.JPEG)) == 206


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    name = build_output_name("{stem}-{job_id}.{ext}", os.fsdecode(b"caf\xe9.jpg"))
    assert os.fsencode(name) == b"caf\xe9-7.jpg"


@pytest.mark.untraced
@settings(max_examples=200, deadline=None, database=None)
@given(
    st.binary(min_size=1, max_size=255).filter(
        lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b"..")
    ),
    st.sampled_from(
        ["{stem}.{ext}", "{name}", "{stem}/{stem}-{stem}", "{name}{name}.{ext}", ".{stem}", ".{ext}", "{stem}/"]
    ),
    st.sampled_from(list(Format)),
    st.integers(1, 9999),
)
def test_every_name_is_one_that_a_file_system_takes(
    raw: bytes, template: str, image_format: Format, number: int
) -> None:
    name = PurePath(build_output_name(template, os.fsdecode(raw), image_format=image_format))
    assert not name.is_absolute()
    assert image_format.allows_suffix(name.suffix)
    for each in (name, add_number(name, number), sidecar_name(name, ".error.json")):
        for part in each.parts:
            assert 0 < len(os.fsencode(part)) <= NAME_MAX
            assert not part.startswith(".")
            assert "\0" not in part
    plain = make_portable(name)
    assert make_portable(plain) == plain
    assert image_format.allows_suffix(plain.suffix)
    assert not set('<>:"|?*\\') & set("".join(plain.parts))
    assert all(len(part.encode()) <= 143 for part in plain.parts)


def test_numbered_names_and_sidecars_are_shortened_if_they_must_be() -> None:
    long = PurePath("2026") / ("x" * 251 + ".jpg")
    assert add_number(PurePath("a/cat.jpg"), 2) == PurePath("a/cat-2.jpg")
    assert add_number(PurePath("cat"), 2) == PurePath("cat-2")
    assert add_number(long, 12) == PurePath("2026") / ("x" * 248 + "-12.jpg")
    assert sidecar_name(PurePath("a/cat.jpg"), ".json") == PurePath("a/cat.jpg.json")
    sidecar = sidecar_name(long, ".error.json").name
    assert sidecar.startswith("x" * 230)
    assert sidecar.endswith(".error.json")
    assert len(sidecar) == 255


def test_long_names_that_differ_at_their_end_have_sidecars_of_their_own() -> None:
    names = [PurePath("x" * 250 + f"{last}.jpg") for last in "ab"]
    assert len({sidecar_name(name, ".json") for name in names}) == 2


def test_a_name_is_shown_without_control_characters() -> None:
    assert printable_path("größe.jpg") == "größe.jpg"
    assert printable_path(Path(os.fsdecode(b"a\xff"))) == "a\\xff"
    assert printable_path("a\n\x1b[2J\u202e") == "a\\n\\x1b[2J\\u202e"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("12:30?.jpg", "12_30_.jpg"),
        ("what?/then. /a|b.jpg", "what_/then_/a_b.jpg"),
        ('<>:"|?*\\\t.jpg', "_________.jpg"),
        ("nul/Com1.scan.jpg", "_nul/_Com1.scan.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf_.jpg"),
        ("x" * 150 + ".jpeg", "x" * 115 + ".jpeg"),
        ("x" * 114 + ". ." + "x" * 50, "x" * 114 + ". ." + "x" * 3),
        ("Été 2019/console/plate 7 (1).tif", "Été 2019/console/plate 7 (1).tif"),
    ],
)
def test_a_portable_name_holds_nothing_that_a_share_refuses(name: str, expected: str) -> None:
    assert make_portable(PurePath(name)) == PurePath(expected)
    assert make_portable(PurePath(expected)) == PurePath(expected)
