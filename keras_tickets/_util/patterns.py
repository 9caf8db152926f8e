"""Regular expressions from anywhere: one that could search for hours is refused.

Python's `re` tries one way after another. A repeat inside a repeat has a number of ways
that grows exponentially with the text; repeats in a row have a power of its length.
"""

from __future__ import annotations

import math
import re

LONGEST = 1000
"""Characters of a pattern."""

_MOST_WAYS = 3 * 10**8  # some seconds
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # an escape, a set
    r"|\((?:\?(?:P?<\w+>|P=\w+|<?[=!]|>|[aiLmsux-]*:|[aiLmsux]+|#[^)]*))?"
    r"|(?:[*+?]|\{(?:\d+,?\d*|,\d*)\})[?+]?|.",
    re.DOTALL,
)
_REPEAT = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")


def check_pattern(pattern: object, subject: str = "A pattern") -> None:
    r"""Raise unless `pattern` is a regular expression that ends in time.

    Args:
        pattern: What was received.
        subject: What it is called.

    Raises:
        ValueError: Naming it, and what is wrong.

    Example:
    >>> check_pattern(r"block_\d+/.*kernel$")
    >>> search(r"block_\d+", "block_3/kernel")
    True
    """
    if not isinstance(pattern, str) or len(pattern) > LONGEST:
        shown = repr(pattern)[:80]
        raise ValueError(
            f"{subject} must be a text of at most {LONGEST} characters. "
            f"Received: {shown}."
        )
    try:
        flags = re.compile(pattern).flags
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{subject} must be a regular expression. Received: {pattern!r}, which is "
            f"none: {error}. To find a text as it is, pass re.escape(text)."
        ) from error
    if flags & re.VERBOSE:  # a bracket in a comment is none
        raise ValueError(f"{pattern!r} has the flag x. Write it without comments.")
    _repeats(pattern)


def search(pattern: str, text: str) -> bool:
    """Return whether `pattern` is found in `text`.

    Args:
        pattern: What `check_pattern` has passed.
        text: Where to look.

    Raises:
        ValueError: If the text is too long for so many repeats.
    """
    repeats = _repeats(pattern)
    if math.comb(len(text) + repeats + 1, repeats + 1) > _MOST_WAYS:
        raise ValueError(
            f"The pattern {pattern!r} has {repeats} repeats, too many for a path of "
            f"{len(text)} characters: {text[:80]!r}. Use fewer."
        )
    return re.search(pattern, text) is not None


def _repeats(pattern: str) -> int:
    """Return how many repeats of no fixed number there are, none inside another."""
    # Of each open group: where it begins, its repeats, whether it has alternatives.
    groups: list[list[int]] = [[0, 0, 0]]
    atom = [0, 0, 0]
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text.startswith("("):
            groups.append([token.start(), 0, 0])
        elif text == ")" and len(groups) > 1:
            atom = groups.pop()
            groups[-1][1] += atom[1]
            groups[-1][2] |= atom[2]
        elif text == "|":
            groups[-1][2] = 1
        elif repeat := _REPEAT.match(text):
            least, most = _bounds(repeat)
            if most > 1 and (atom[1] or atom[2]):
                part = pattern[atom[0] : token.start()]
                raise ValueError(
                    f"{pattern!r} repeats {part!r}, which repeats or has alternatives "
                    "itself. That may take longer than anyone waits: repeat one of "
                    "them only."
                )
            groups[-1][1] += least != most
        else:
            atom = [token.start(), 0, 0]
    return groups[0][1]


def _bounds(repeat: re.Match[str]) -> tuple[float, float]:
    if repeat[0] in "*+?":
        return float(repeat[0] == "+"), 1 if repeat[0] == "?" else math.inf
    least, comma, most = repeat.groups()
    if not comma:
        return float(least), float(least)
    return float(least or 0), float(most or math.inf)
