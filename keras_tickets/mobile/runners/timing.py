"""What every runner hands back."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timing:
    """Timed runs of one file in one place.

    Args:
        seconds: The time of each run, in order, without the warm-up.
        runtime: Which program ran the file, with its version.
        device: Which machine it ran on.
        emulated: Whether the machine was emulated, so that only ratios count.
    """

    seconds: tuple[float, ...]
    runtime: str
    device: str
    emulated: bool = False
