"""Publishing while the file system refuses one step after the other: no file is overwritten, none is left over."""

import errno
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path, PurePath

import pytest

from picwish_watchd.outbox.publish import Published, ensure_durable, publish_result
from tests.support.seccomp_publish import IS_SUPPORTED, PublishOrder, dump_orders

pytestmark = pytest.mark.untraced

DATA = b"result" * 40_000
DIGEST = sha256(DATA).hexdigest()
AWAY, ROOM, REFUSED, DONE = "FolderUnavailable", "NoSpace", "NameRefused", "Published"
#: The meaning of an error where there is no other way to publish.
OUTCOME_BY_ERRNO = {errno.EIO: AWAY, errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EINVAL: REFUSED, errno.ENOSYS: AWAY}
NO_RENAMEAT2 = {"renameat2": errno.ENOSYS}
NO_LINKS = {"renameat2": errno.EINVAL, "linkat": errno.EPERM}

# Name, faults, replace, expected outcome.
RefusalCase = tuple[str, dict[str, int], bool, str]


def list_cases() -> list[RefusalCase]:
    cases: list[RefusalCase] = [("vfat over FUSE", NO_LINKS, False, DONE), ("NFS", NO_RENAMEAT2, False, DONE)]
    for number, meaning in OUTCOME_BY_ERRNO.items():
        unknown = number in (errno.EINVAL, errno.ENOSYS)
        name = errno.errorcode[number]
        cases += [
            (f"write {name}", {"write": number}, False, meaning),
            (f"fsync {name}", {"fsync": number}, False, meaning),
            (f"mkdir {name}", {"mkdirat": number}, False, meaning),
            (f"renameat2 {name}", {"renameat2": number}, False, DONE if unknown else meaning),
            (f"link {name}", {**NO_RENAMEAT2, "linkat": number}, False, DONE if unknown else meaning),
            (f"rename over the placeholder {name}", {**NO_LINKS, "renameat": number}, False, meaning),
            (f"rename over an older one {name}", {"renameat": number}, True, meaning),
            (f"unlink of the part after the link {name}", {**NO_RENAMEAT2, "unlinkat": number}, False, DONE),
        ]
    return cases


@pytest.mark.skipif(not IS_SUPPORTED, reason="the numbers of this machine's system calls are not known here")
@pytest.mark.parametrize("name_taken", [False, True], ids=["free", "taken"])
def test_any_refused_syscall_clobbers_nothing_and_leaves_no_part_file(name_taken: bool, tmp_path: Path) -> None:
    spooled = tmp_path / "7.result"
    spooled.write_bytes(DATA)
    orders = []
    for number, (_, faults, replace, _) in enumerate(list_cases()):
        outbox = tmp_path / f"outbox-{number}"
        outbox.mkdir()
        if "mkdirat" not in faults:
            (outbox / "sub").mkdir()
        if replace or (name_taken and "mkdirat" not in faults):
            (outbox / "sub" / "a.jpg").write_bytes(b"older")
        orders.append(PublishOrder(str(spooled), str(outbox), "sub/a.jpg", DIGEST, replace, faults))
    command = (sys.executable, "-m", "tests.support.seccomp_publish")
    process = subprocess.run(command, input=dump_orders(orders), capture_output=True, text=True, check=True, timeout=60)
    wrong = [
        (case[0], outcome, mismatch)
        for case, order, outcome in zip(list_cases(), orders, process.stdout.split(), strict=True)
        if (mismatch := describe_mismatch(case, Path(order.outbox) / "sub", outcome, name_taken=name_taken))
    ]
    assert wrong == []


def describe_mismatch(case: RefusalCase, folder: Path, outcome: str, *, name_taken: bool) -> str | None:
    """Return what is wrong after one order, or an empty string."""
    _, faults, replace, expected = case
    content = (folder / "a.jpg").read_bytes() if (folder / "a.jpg").exists() else None
    parts = [path.name for path in folder.glob(".picwish-*")]
    if parts and "unlinkat" not in faults:
        return f"litter: {parts}"
    if not replace and name_taken and "mkdirat" not in faults:
        allowed = {"NameTaken"} if expected == DONE else {"NameTaken", expected}
        return None if content == b"older" and outcome in allowed else "clobbered, or a wrong answer"
    if content != (DATA if expected == DONE else b"older" if replace else None):
        return f"wrong content: {content[:9] if content else content!r}"
    return None if outcome == expected else f"{expected} was expected"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_failed_folder_sync_leaves_a_whole_recognisable_result(error: str, tmp_path: Path) -> None:
    spooled, outbox = tmp_path / "7.result", tmp_path / "outbox"
    spooled.write_bytes(DATA)
    outbox.mkdir()
    order = PublishOrder(str(spooled), str(outbox), "a.jpg", DIGEST, False, {})
    inject = ("-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=2")
    command = (
        "strace",
        "-f",
        "-qq",
        "-o",
        tmp_path / "trace",
        *inject,
        sys.executable,
        "-m",
        "tests.support.seccomp_publish",
    )
    process = subprocess.run(
        command, input=dump_orders([order]), capture_output=True, text=True, check=False, timeout=60
    )
    if not (tmp_path / "trace").exists() or "INJECTED" not in (tmp_path / "trace").read_text():
        pytest.skip(f"may not trace: {process.stderr}")
    assert process.stdout.split() == [AWAY if error == "EIO" else ROOM]
    assert os.listdir(outbox) == ["a.jpg"]
    assert ensure_durable(outbox / "a.jpg", DIGEST) is True


@pytest.mark.skipif(not IS_SUPPORTED, reason="the numbers of this machine's system calls are not known here")
def test_an_existing_result_counts_only_once_its_name_is_synced(tmp_path: Path) -> None:
    """Its name may exist in memory only; after a crash it would be gone, and the spool's copy was given up for it."""
    there = tmp_path / "a.jpg"
    there.write_bytes(DATA)
    script = (
        "import errno, sys; from pathlib import Path; from tests.support.seccomp_publish import install_filter\n"
        "from picwish_watchd.outbox.publish import ensure_durable\n"
        "install_filter({'fsync': errno.EIO}); print(type(ensure_durable(Path(sys.argv[1]), sys.argv[2])).__name__)"
    )
    command = (sys.executable, "-c", script, there, DIGEST)
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert process.stdout.strip() == AWAY


def test_a_folder_from_which_nothing_is_removed_gets_a_result_once(tmp_path: Path) -> None:
    """The attribute is chattr +a, as on shares that keep everything: files can be created and linked only."""
    spooled, outbox = tmp_path / "7.result", tmp_path / "outbox"
    spooled.write_bytes(DATA)
    outbox.mkdir()
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+a", outbox], check=False).returncode != 0:
        pytest.skip("chattr +a is not possible with this file system or user")
    try:
        outcome = publish_result(spooled, outbox, PurePath("a.jpg"), mode=0o640, replace=False, tag="7", sha256=DIGEST)
    finally:
        subprocess.run(["chattr", "-a", outbox], check=True)
    assert outcome == Published(outbox / "a.jpg")
    assert (outbox / "a.jpg").read_bytes() == DATA
    assert len([path for path in outbox.iterdir() if not path.name.endswith(".part")]) == 1
