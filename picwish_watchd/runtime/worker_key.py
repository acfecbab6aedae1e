"""Name the worker threads of the daemon's `KeyedExecutor`: calls with one key run one after the other."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerKey:
    """The key of a worker; folders that may hang together share one. ``name`` is also the name of its thread.

    Make keys by the methods below: a misspelt name would start another thread, and calls would no longer be in order.
    """

    name: str

    @classmethod
    def outbox(cls, rule: str) -> "WorkerKey":
        """Return the worker that delivers a rule's results and moves its originals."""
        return cls(f"out:{rule}")

    @classmethod
    def source(cls, rule: str) -> "WorkerKey":
        """Return the worker that reads a rule's images before they are submitted."""
        return cls(f"read:{rule}")

    @classmethod
    def intake(cls, rule: str, inbox: object) -> "WorkerKey":
        """Return the worker that validates new files in a rule's ``inbox``, the path of a folder.

        The path is part of the key: an earlier inbox of the rule may hang, and a new one must not wait for it.
        """
        return cls(f"in:{rule}:{inbox}")

    @classmethod
    def downscale(cls) -> "WorkerKey":
        """Return the worker that makes images smaller, one at a time."""
        return cls("fit")

    @classmethod
    def spool(cls) -> "WorkerKey":
        """Return the worker that writes to the spool."""
        return cls("spool")

    @classmethod
    def notifier(cls, notifier_id: str) -> "WorkerKey":
        """Return the worker that sends the messages of one notifier."""
        return cls(f"notify:{notifier_id}")

    @classmethod
    def used_before_submission(cls, rule: str) -> "tuple[WorkerKey, ...]":
        """Return the workers that an image of ``rule`` needs before it is submitted."""
        return (cls.outbox(rule), cls.source(rule))
