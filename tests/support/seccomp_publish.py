"""Publishing under a kernel that refuses: in a process whose system calls fail as told (seccomp(2)).

    python -m tests.support.seccomp_publish

It reads JSON lines (`PublishOrder`) from standard input and prints a line with the outcome of each.

The filter is the kernel's own; each order is carried out by a fork, for a filter can never be taken off again.
"""

import ctypes
import json
import os
import platform
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

from picwish_watchd.fs.atomic_write import FolderUnavailable, NameRefused, NoSpace
from picwish_watchd.outbox.publish import NameTaken, Published, SpoolDamaged, publish_result

#: linux: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_SYSCALL_NUMBERS = {
    "x86_64": {
        "write": 1,
        "fsync": 74,
        "fchmod": 91,
        "mkdirat": 258,
        "unlinkat": 263,
        "renameat": 264,
        "linkat": 265,
        "renameat2": 316,
    },
    "aarch64": {
        "mkdirat": 34,
        "unlinkat": 35,
        "linkat": 37,
        "renameat": 38,
        "fchmod": 52,
        "write": 64,
        "fsync": 82,
        "renameat2": 276,
    },
}
IS_SUPPORTED = platform.machine() in _SYSCALL_NUMBERS
_OUTCOMES = (Published, NameTaken, FolderUnavailable, NoSpace, NameRefused, SpoolDamaged)
# linux/seccomp.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# linux/bpf_common.h
_LOAD_NUMBER, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


@dataclass(frozen=True)
class PublishOrder:
    spooled: str
    outbox: str
    name: str
    sha256: str
    replace: bool
    #: system call -> errno
    faults: dict[str, int]


def install_filter(faults: dict[str, int]) -> None:
    """From now on these system calls fail so, in this process and for ever."""
    numbers = _SYSCALL_NUMBERS[platform.machine()]
    program = [struct.pack("<HBBI", _LOAD_NUMBER, 0, 0, 0)]
    for call, error in faults.items():
        program.append(struct.pack("<HBBI", _IF_EQUAL, 0, 1, numbers[call]))
        program.append(struct.pack("<HBBI", _RETURN, 0, 0, _ERRNO | error))
    program.append(struct.pack("<HBBI", _RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    # PR_SET_SECCOMP
    assert libc.prctl(22, 2, ctypes.addressof(head), 0, 0) == 0, os.strerror(ctypes.get_errno())


def run_order(order: PublishOrder) -> type:
    """What `publish` answers."""
    install_filter(order.faults)
    found = publish_result(
        Path(order.spooled),
        Path(order.outbox),
        PurePath(order.name),
        mode=0o640,
        replace=order.replace,
        tag="7",
        sha256=order.sha256,
    )
    return type(found)


def dump_orders(orders: list[PublishOrder]) -> str:
    """As `main` reads them."""
    return "".join(json.dumps(asdict(order)) + "\n" for order in orders)


def main() -> None:
    """One fork an order; its exit code is the outcome, for it may not be able to write."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                code = _OUTCOMES.index(run_order(PublishOrder(**json.loads(line))))
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write((_OUTCOMES[code].__name__ if code < len(_OUTCOMES) else f"died of {code}") + "\n")


if __name__ == "__main__":
    main()
