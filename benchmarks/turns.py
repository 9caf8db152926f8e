"""Two measurements in turns: whatever else the machine does meets both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np


def alternate(
    first: Callable[[], float], second: Callable[[], float], turns: int
) -> tuple[list[float], list[float]]:
    """Measures both in each turn, the one or the other first."""
    measured: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            measured[which].append((first, second)[which]())
    return measured


def speed_up(dense: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """The ratio of the medians, and the spread of the turns' own ratios."""
    ratios = [a / b for a, b in zip(dense, other, strict=True)]
    return {
        "speed_up": round(statistics.median(dense) / statistics.median(other), 3),
        "speed_up_p10": round(float(np.percentile(ratios, 10)), 3),
        "speed_up_p90": round(float(np.percentile(ratios, 90)), 3),
    }
