"""A flood of files into folders that are made as it comes."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.pictures import numbered
from tests.support.house import House, Process, until
from tests.support.pictures import picture

FILES, WRITERS = 1200, 3


@pytest.mark.untraced
async def test_a_burst_into_new_nested_folders_makes_one_job_of_each_file(house: House) -> None:
    house.api["qps"] = 1
    jpeg = picture("jpeg")
    process = Process(house).start()
    await until(lambda: "daemon.ready" in process.errors.read_text())

    def write(start: int) -> None:
        for number in range(start, FILES - 200, WRITERS):
            folder = house.inbox / f"{number // 400}" / f"{number // 80}" / f"{number // 40}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(numbered(jpeg, number))

    tree = house.root / "tree"
    for number in range(FILES - 200, FILES):
        (tree / f"{number // 10}").mkdir(parents=True, exist_ok=True)
        (tree / f"{number // 10}" / f"{number}.jpg").write_bytes(numbered(jpeg, number))
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    shutil.move(tree, house.inbox / "moved")
    await until(lambda: len(house.jobs()) >= FILES)
    assert await process.stop() == 0

    again = Process(house).start()
    await until(lambda: again.errors.read_text().count("daemon.ready") == 2)
    assert await again.stop() == 0
    jobs = house.jobs()
    assert len(jobs) == len({job.source for job in jobs}) == len({job.sha256 for job in jobs}) == FILES
    assert all(job.problem is None for job in jobs)
