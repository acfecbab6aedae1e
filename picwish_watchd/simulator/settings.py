"""What the simulator is told to be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from picwish_watchd.clock import Clock

ProcessingTime = tuple[float, float] | Callable[[], float]


@dataclass(frozen=True, slots=True)
class Settings:
    """One PicWish. Times are seconds, sizes bytes, sides pixels; limits without a source are our own choice.

    Raises ValueError for a value that makes no sense. Give a running simulator other settings by
    ``sim.settings = dataclasses.replace(sim.settings, ...)``; tasks that were made before keep their times.
    """

    #: creates and queries together (PicWish's status page: 2); None: no limit
    qps: float | None = 2
    #: the only key that is taken; None: any that is not empty
    key: str | None = None
    #: (median, sigma) of a lognormal law, or what gives the next time
    processing: ProcessingTime = (3.0, 0.3)
    #: of the lognormal law
    seed: int = 0
    #: processing times are multiplied by this; nothing else is
    time_scale: float = 1.0
    #: of a result URL (API document, guideline 1)
    url_lifetime: float = 3600.0
    #: from a task's end until nobody knows it any more (PicWish: up to 1 hour)
    retention: float = 3600.0
    #: of an image (API document: 30MB); more is answered 413
    max_bytes: int = 31_457_280
    #: of an image (API document); more ends the task in state -5
    max_side: int = 4096
    #: before each answer of the API
    latency: float = 0.0
    #: longest side of the result / of the source, so far as that stays within 8192
    enlarge: float = 2.0
    #: echo: the result is the upload itself, for benchmarks
    enhance: Literal["real", "echo"] = "real"
    #: credits that the key may use up in all; None: endless
    balance: int | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Refuses what could never work."""
        wrong = [
            name
            for name in ("time_scale", "url_lifetime", "retention", "max_bytes", "max_side", "latency", "balance")
            if (value := getattr(self, name)) is not None and value < 0
        ]
        if self.qps is not None and self.qps <= 0:
            wrong.append("qps")
        if self.enlarge < 1:
            wrong.append("enlarge")
        if not callable(self.processing) and min(self.processing) < 0:
            wrong.append("processing")
        if wrong:
            raise ValueError(f"the simulator cannot work with this {', '.join(wrong)}: too small")
