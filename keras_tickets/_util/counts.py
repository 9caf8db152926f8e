"""Arguments that count something."""

from __future__ import annotations

from typing import Any


def check_counts(**counts: tuple[Any, int]) -> None:
    """Refuses what is no whole number, or too small a one.

    Args:
        counts: For each argument, what was received and the least it may be.

    Raises:
        ValueError: If one makes no sense.

    Example:
    >>> check_counts(runs=(0, 1))
    Traceback (most recent call last):
    ...
    ValueError: `runs` must be a whole number of at least 1. Received: runs=0
    """
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(
                f"`{name}` must be a whole number of at least {least}. "
                f"Received: {name}={value!r}"
            )
