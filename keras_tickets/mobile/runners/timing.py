"""What every runner hands back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


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
        conditions: What else the times depend on, in words by topic.
    """

    seconds: tuple[float, ...]
    runtime: str
    device: str
    emulated: bool = False
    portions: tuple[int, ...] = ()
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
