"""An image goes in and an enhanced image comes out, for every combination of the API's options."""

from itertools import product

import pytest
from PIL import Image

from picwish_watchd.job import OriginalStatus, State
from tests.support.harness import Harness
from tests.support.sample_images import BASIC_KINDS, file_name

NAMES = {
    "jpeg": "Ferien 2019/Größe.JPG",
    "png": "scan 1.png",
    "webp": "a/b/c/photo.WebP",
    "bmp": "OLD.BMP",
    "tiff": "Tafel é 7.TIFF",
    "jpeg-progressive": "progressive.jpeg",
}


def mean_colour(image: Image.Image) -> tuple[int, ...]:
    """Return the mean colour, by which the tests identify an image."""
    pixel = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return tuple(round(channel) for channel in pixel)


@pytest.mark.parametrize(("sync", "model", "return_type"), list(product((0, 1), (0, 1), (1, 2))))
async def test_every_picture_comes_out_enlarged_and_belongs_to_its_source(
    harness: Harness, sync: int, model: int, return_type: int
) -> None:
    harness.rule = {"sync": sync, "type": model, "return_type": return_type}
    sources = {harness.drop_file(name, kind=kind): kind for kind, name in NAMES.items()}

    assert await harness.run_once() == 0

    jobs = harness.jobs()
    assert {job.state for job in jobs} == {State.DONE}
    assert {job.source for job in jobs} == set(sources)
    for job in jobs:
        assert job.output is not None
        with Image.open(job.output) as after, Image.open(job.source) as before:
            assert after.size == (before.width * 2, before.height * 2)
            near = zip(mean_colour(after), mean_colour(before), strict=True)
            assert all(abs(a - b) <= 12 for a, b in near), f"{job.output} is not the picture of {job.source}"
        assert job.output.parent.relative_to(harness.outbox) == job.relative.parent
        assert job.credits == (5, 4)[model]
    assert sum(job.credits for job in jobs) == harness.simulator.credits_used
    assert harness.count_creates() == len(sources)


async def test_a_second_run_pays_for_nothing(harness: Harness) -> None:
    for number, kind in enumerate(BASIC_KINDS):
        harness.drop_file(file_name(kind), seed=number)
    assert await harness.run_once() == 0
    assert await harness.run_once() == 0
    assert harness.count_creates() == len(BASIC_KINDS)


async def test_a_touched_file_is_not_paid_again(harness: Harness) -> None:
    path = harness.drop_file("a.jpg")
    await harness.run_once()
    path.touch()
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1


async def test_a_file_that_was_replaced_is_a_new_job(harness: Harness) -> None:
    harness.drop_file("a.jpg", seed=1)
    await harness.run_once()
    harness.drop_file("a.jpg", seed=2)
    assert await harness.run_once() == 0
    assert harness.count_creates() == 2
    assert harness.results() == {"a.jpg", "a-1.jpg"}


async def test_originals_are_moved_to_the_archive_with_their_folders(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "archive"}
    source = harness.drop_file("box 1/a.jpg")
    data = source.read_bytes()
    assert await harness.run_once() == 0
    assert not source.exists()
    assert (harness.root / "archive/box 1/a.jpg").read_bytes() == data
    assert harness.job("box 1/a.jpg").original is OriginalStatus.MOVED


async def test_originals_are_deleted_only_after_their_result_is_published(harness: Harness) -> None:
    harness.rule = {"on_success": "delete"}
    source = harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert not source.exists()
    assert harness.results() == {"a.jpg"}


async def test_a_sidecar_holds_job_and_answer_but_no_url(harness: Harness) -> None:
    harness.rule = {"sidecar": True, "file_mode": "0640"}
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    text = (harness.outbox / "a.jpg.json").read_text()
    assert (harness.job("a.jpg").task_id or "no task") in text
    assert "Signature" not in text
    assert "http" not in text
    assert (harness.outbox / "a.jpg").stat().st_mode & 0o777 == 0o640
    assert (harness.outbox / "a.jpg.json").stat().st_mode & 0o777 == 0o640


async def test_names_follow_the_template(harness: Harness) -> None:
    harness.rule = {"filename": "{rule}/{stem}_{width}x{height}_{type}.{ext}"}
    harness.drop_file("sub/a.JPG")
    assert await harness.run_once() == 0
    assert harness.results() == {"sub/scans/a_192x128_0.JPG"}


async def test_two_sources_of_one_name_get_two_results(harness: Harness) -> None:
    harness.drop_file("a.bmp", kind="bmp")
    harness.drop_file("a.png", kind="png")
    assert await harness.run_once() == 0
    assert harness.results() == {"a.png", "a-1.png"}


async def test_overwrite_replaces_a_strangers_file_but_never_another_sources_result(harness: Harness) -> None:
    harness.rule = {"if_exists": "overwrite"}
    harness.outbox.mkdir()
    (harness.outbox / "a.png").write_bytes(b"old")
    harness.drop_file("a.bmp", kind="bmp")
    harness.drop_file("a.png", kind="png")
    assert await harness.run_once() == 0
    assert harness.results() == {"a.png", "a-1.png"}
    assert {job.output for job in harness.jobs()} == {harness.outbox / "a.png", harness.outbox / "a-1.png"}


async def test_skip_checks_the_outbox_before_it_pays(harness: Harness) -> None:
    harness.rule = {"if_exists": "skip"}
    harness.outbox.mkdir()
    harness.outbox.joinpath("a.PNG").write_bytes(harness.drop_file("other.png", kind="png").read_bytes())
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    job = harness.job("a.jpg")
    assert (job.state, job.credits, job.output) == (State.DONE, 0, harness.outbox / "a.PNG")
    assert harness.count_creates() == 1


async def test_a_link_file_is_submitted_by_its_address(harness: Harness) -> None:
    address = "https://pictures.example/harbour%20view.jpg"
    harness.simulator.remote_images[address] = harness.drop_file("other.jpg").read_bytes()
    (harness.inbox / "harbour.url").write_text(f"[InternetShortcut]\r\nURL={address}\r\n")
    harness.rule = {"include": ["*.url", "*.webloc"]}
    assert await harness.run_once() == 0
    assert harness.results() == {"harbour.jpg"}
    assert harness.job("harbour.url").url == address
