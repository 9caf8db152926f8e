"""Checks of single arguments: numbers, counts, seeds, switches and words.

Each returns the argument as Python's own type, so that a config can be written as JSON
whoever computed the number: NumPy's scalars are welcome, booleans are no numbers.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection
from typing import Any

import numpy as np

WORDS = {
    "(0, inf)": "be positive",
    "[0, inf)": "not be negative",
    "(-inf, inf)": "be finite",
}
"""What is said of intervals that have no bound above."""


def number(subject: str, value: Any, interval: str, hint: str = "") -> float:
    """Return a number that lies in an interval.

    Args:
        subject: The argument's name; what more is said of it may follow the name.
        value: What was received.
        interval: Such as `"[0, 1)"`, as mathematics writes it.
        hint: What to do about it.

    Raises:
        ValueError: If it is no number, or lies elsewhere; NaN lies nowhere.

    Example:
    >>> number("until", np.float64(0.5), "(0, 1]")
    0.5
    >>> number("until", 1.5, "(0, 1]")
    Traceback (most recent call last):
    ...
    ValueError: until must lie in (0, 1]. Received: 1.5.
    """
    given = as_number(value)
    if given is None or not _within(given, interval):
        must = WORDS.get(interval, f"lie in {interval}")
        raise ValueError(f"{subject} must {must}. {_received(value)}{hint}")
    return given


def whole(subject: str, value: Any, least: int, hint: str = "") -> int:
    """Return a whole number that is large enough.

    Args:
        subject: The argument's name; what more is said of it may follow the name.
        value: What was received.
        least: The least that it may be.
        hint: What to do about it.

    Raises:
        ValueError: If it is another.

    Example:
    >>> whole("rounds", 3.0, least=1)
    3
    """
    given = as_number(value)
    if given is None or not float(given).is_integer() or given < least:
        raise ValueError(
            f"{subject} must be a whole number of at least {least}. "
            f"{_received(value)}{hint}"
        )
    return int(given)


def seed(value: Any, subject: str = "seed") -> int:
    """Return what a generator of random numbers can begin with.

    Raises:
        ValueError: If it is no whole number, or negative.
    """
    if as_number(value) is not None and value < 0:
        raise ValueError(
            f"{subject} must not be negative. Received: {subject}={value}."
        )
    return whole(subject, value, least=0)


def switch(subject: str, value: Any) -> bool:
    """Return True or False.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{subject} must be True or False. {_received(value)}")
    return bool(value)


def word(subject: str, value: Any, words: Collection[str]) -> str:
    """Return one of some words.

    Raises:
        ValueError: If it is another.
    """
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{subject} must be one of {words}. {_received(value)}")
    return value


def as_number(value: Any) -> float | None:
    """Return a number as Python's own type; `None` if it is no number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _within(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)


def _received(value: Any) -> str:
    kind = "" if as_number(value) is not None else f", a {type(value).__name__}"
    return f"Received: {value!r}{kind}."
