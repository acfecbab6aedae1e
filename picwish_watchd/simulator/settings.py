"""The settings of the simulator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from picwish_watchd.clock import Clock

ProcessingTime = tuple[float, float] | Callable[[], float]


@dataclass(frozen=True, slots=True)
class Settings:
    """The behaviour of a simulator. Times are in seconds, sizes in bytes, sides in pixels.

    Limits without a source are our own choice. Raises ValueError for a value that makes no sense. To change the
    settings of a running simulator: ``sim.settings = dataclasses.replace(sim.settings, ...)``. Existing tasks keep
    their times.
    """

    #: Requests a second, creates and queries together (PicWish's status page: 2); None for no limit.
    qps: float | None = 2
    #: The only key that is accepted; None for any that is not empty.
    key: str | None = None
    #: (median, sigma) of a lognormal distribution, or a function that returns the next time
    processing: ProcessingTime = (3.0, 0.3)
    #: Seed of the random numbers for ``processing``.
    seed: int = 0
    #: Factor for processing times, and for nothing else.
    time_scale: float = 1.0
    #: Seconds for which a result URL is valid (API document, guideline 1).
    url_lifetime: float = 3600.0
    #: Seconds from a task's end until it is forgotten (PicWish: up to 1 hour).
    retention: float = 3600.0
    #: Bytes of the largest image (API document: 30MB); larger ones are answered with 413.
    max_bytes: int = 31_457_280
    #: Longest side of an image (API document); longer ones end the task in state -5.
    max_side: int = 4096
    #: Seconds before each response of the API.
    latency: float = 0.0
    #: Longest side of the result divided by that of the source; the result stays within 8192 pixels.
    enlarge: float = 2.0
    #: "echo" returns the upload itself, for benchmarks
    enhance: Literal["real", "echo"] = "real"
    #: Credits that the key may use in all; None for no limit.
    balance: int | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        too_small = [
            name
            for name in ("time_scale", "url_lifetime", "retention", "max_bytes", "max_side", "latency", "balance")
            if (value := getattr(self, name)) is not None and value < 0
        ]
        if self.qps is not None and self.qps <= 0:
            too_small.append("qps")
        if self.enlarge < 1:
            too_small.append("enlarge")
        if not callable(self.processing) and min(self.processing) < 0:
            too_small.append("processing")
        if too_small:
            raise ValueError(f"these settings of the simulator are too small: {', '.join(too_small)}")
