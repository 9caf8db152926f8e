"""What every runner is asked for, and hands back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs that are to be timed.

    Args:
        count: How many runs are timed.
        warmup: How many runs before are not.
        threads: Threads that the runtime may use.
        progress: Called with the number of runs done so far, the warm-up included,
            outside of the timed part.
    """

    count: int
    warmup: int = 0
    threads: int = 1
    progress: Callable[[int], None] = lambda done: None

    @property
    def total(self) -> int:
        """How many runs there are, the warm-up included."""
        return self.warmup + self.count


@dataclasses.dataclass(frozen=True)
class Timing:
    """Timed runs of one file in one place.

    Args:
        seconds: The time of each run, in order, without the warm-up; or the mean of
            each portion of runs, where single runs are not told.
        runtime: Which program ran the file, with its version.
        device: Which machine it ran on.
        emulated: Whether the machine was emulated, so that only ratios count.
        portions: How many runs each time is the mean of; empty if it is one run.
        single_runs: What single runs took, in words, where each time is the mean of
            several.
        conditions: What else the times depend on, in words by topic.
    """

    seconds: tuple[float, ...]
    runtime: str
    device: str
    emulated: bool = False
    portions: tuple[int, ...] = ()
    single_runs: str = ""
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
