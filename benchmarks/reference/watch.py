"""``watch.py INBOX OUTBOX``: enhance each new image. The package's docstring says where this shape comes from.

Environment: API, KEY, SYNC (0 or 1), EVERY (seconds between two tries), AT_ONCE (number of threads).
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

TASKS = os.environ["API"] + "/api/tasks/visual/scale-pro"
HEADERS = {"X-API-KEY": os.environ["KEY"]}
FORM = {"sync": os.environ["SYNC"], "type": "0", "return_type": "1"}
POLL_INTERVAL = float(os.environ["EVERY"])

client = httpx.Client(headers=HEADERS, timeout=60)
pool = ThreadPoolExecutor(int(os.environ["AT_ONCE"]))


def submit(path: Path) -> dict[str, Any]:
    """Return the task of a new request; try again while PicWish refuses it."""
    while True:
        with path.open("rb") as file:
            response = client.post(TASKS, data=FORM, files={"image_file": file})
        if response.status_code == 200:
            return dict(response.json()["data"])
        time.sleep(POLL_INTERVAL)


def query(task_id: str) -> dict[str, Any]:
    """Return the current task as PicWish reports it."""
    response = client.get(f"{TASKS}/{task_id}")
    return dict(response.json()["data"]) if response.status_code == 200 else {}


def enhance(path: Path, outbox: Path) -> None:
    """Enhance one image from the inbox into the outbox."""
    # The file may be incomplete yet.
    time.sleep(POLL_INTERVAL)
    task = submit(path)
    task_id = task["task_id"]
    while task.get("state", 0) != 1:
        if task.get("state", 0) < 0:
            raise RuntimeError(f"{path}: {task['state_detail']}")
        time.sleep(POLL_INTERVAL)
        task = query(task_id)
    (outbox / path.name).write_bytes(httpx.get(task["image"], timeout=60).content)


class NewPicture(FileSystemEventHandler):
    """Pass each new file to the thread pool."""

    def __init__(self, outbox: Path) -> None:
        self.outbox = outbox

    def on_created(self, event: FileSystemEvent) -> None:
        """Start work on a new file."""
        if not event.is_directory:
            pool.submit(enhance, Path(str(event.src_path)), self.outbox)


if __name__ == "__main__":
    observer = Observer()
    observer.schedule(NewPicture(Path(sys.argv[2])), sys.argv[1])
    observer.start()
    observer.join()
