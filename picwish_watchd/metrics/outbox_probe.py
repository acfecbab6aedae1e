"""Check whether results can be put into the outboxes, without creating anything."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.outbox.availability import describe_hang, find_write_problem

# Seconds for all folders together.
_PROBE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class KnownOutbox:
    """An outbox and what the journal knows about it."""

    folder: Path
    #: Whether it was written to before.
    is_known: bool
    #: The mount that it was last accepted on.
    accepted: AcceptedMount
    #: Bytes that must be free.
    min_free: int


class OutboxProbe:
    """Checks outboxes in a thread each. A hung mount occupies one thread, however often it is checked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running_probes: dict[Path, _ProbeThread] = {}

    def find_unusable(self, outboxes: Mapping[Path, KnownOutbox]) -> dict[Path, str]:
        """Return by folder why it cannot be used now; usable folders are left out. Takes about a second at most."""
        probes = {folder: self._start_probe(outbox) for folder, outbox in outboxes.items()}
        deadline = time.monotonic() + _PROBE_TIMEOUT
        reasons = {}
        for folder, probe in probes.items():
            probe.join(max(0.0, deadline - time.monotonic()))
            reason = describe_hang(_PROBE_TIMEOUT) if probe.is_alive() else probe.reason
            if reason is not None:
                reasons[folder] = reason
        return reasons

    def _start_probe(self, outbox: KnownOutbox) -> "_ProbeThread":
        with self._lock:
            probe = self._running_probes.get(outbox.folder)
            if probe is None or not probe.is_alive():
                probe = self._running_probes[outbox.folder] = _ProbeThread(outbox)
                probe.start()
            return probe


class _ProbeThread(threading.Thread):
    """One check of one outbox; ``reason`` is why it cannot be used."""

    def __init__(self, outbox: KnownOutbox) -> None:
        super().__init__(name=f"look-{outbox.folder}", daemon=True)
        self.reason: str | None = None
        self._outbox = outbox

    def run(self) -> None:
        """Check the outbox and set ``reason``."""
        try:
            self.reason = _why_unusable(self._outbox)
        except OSError as error:
            self.reason = error.strerror or str(error)


def _why_unusable(outbox: KnownOutbox) -> str | None:
    problem = find_write_problem(outbox.folder, outbox.accepted, seen=outbox.is_known, min_free=outbox.min_free)
    return None if problem is None else problem.reason
