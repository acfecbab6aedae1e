"""Publish results in processes whose system calls fail on request (seccomp(2)).

    python -m tests.support.seccomp_publish

It reads JSON lines (`PublishOrder`) from standard input and prints the name of each outcome on a line.

Each order is carried out by a fork, because a seccomp filter cannot be removed again.
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

#: System call numbers. Sources: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h in Linux.
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
# Return values of a filter, from linux/seccomp.h.
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# BPF instructions, from linux/bpf_common.h.
_LOAD_NUMBER, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


@dataclass(frozen=True)
class PublishOrder:
    spooled: str
    outbox: str
    name: str
    sha256: str
    replace: bool
    #: System call -> errno.
    faults: dict[str, int]


def install_filter(faults: dict[str, int]) -> None:
    """Let these system calls fail with their errno in this process, permanently."""
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
    # The option 38 is PR_SET_NO_NEW_PRIVS.
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    # The option 22 is PR_SET_SECCOMP, the mode 2 is SECCOMP_MODE_FILTER.
    assert libc.prctl(22, 2, ctypes.addressof(head), 0, 0) == 0, os.strerror(ctypes.get_errno())


def run_order(order: PublishOrder) -> type:
    """Publish under the filter and return the class of the outcome."""
    install_filter(order.faults)
    outcome = publish_result(
        Path(order.spooled),
        Path(order.outbox),
        PurePath(order.name),
        mode=0o640,
        replace=order.replace,
        tag="7",
        sha256=order.sha256,
    )
    return type(outcome)


def dump_orders(orders: list[PublishOrder]) -> str:
    """Return the orders in the form that `main` reads."""
    return "".join(json.dumps(asdict(order)) + "\n" for order in orders)


def main() -> None:
    """Fork for each order. The exit code is the index of the outcome, because the fork may be unable to write."""
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
