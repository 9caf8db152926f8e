"""Reads what LiteRT's `benchmark_model` prints.

Older versions know no percentiles, and none reports the time of each single run.
"""

from __future__ import annotations

import dataclasses
import re

_NUMBER = r"(-?\d[\d.]*(?:e[-+]?\d+)?)"

# `count=50 first=249042 curr=250889 min=247067 ...`; one run is `count=1 curr=249042`,
# and equal ones are `count=3 curr=12(all same)`. In microseconds.
_COUNTED = re.compile(r"\bcount=(\d+)((?: \w+=[^\s(]+)*)")
_PAIR = re.compile(rf" (\w+)={_NUMBER}")

_REPLACED = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)"
)

# In this layout of memory XNNPACK computes if it computes sparse, and never else.
_SPARSE_LAYOUT = "Convolution (NCHW, "


@dataclasses.dataclass(frozen=True)
class Summary:
    """Runs of one file in one process, in seconds.

    Args:
        count: How many.
        mean: Their mean.
        fastest: The fastest of them.
        slowest: The slowest of them.
        median: Their median; None where the program does not report it.
    """

    count: int
    mean: float
    fastest: float
    slowest: float
    median: float | None = None


def summary(text: str) -> Summary:
    """Find the timed runs in what the program printed; not those to warm up.

    Args:
        text: All of it, of any version.

    Returns:
        The runs.

    Raises:
        ValueError: If there are none.

    Example:
    >>> summary("count=50 first=9 curr=9 min=8 max=12 avg=9.5 std=1").mean
    9.5e-06
    """
    if found := _counted(text):
        return found
    raise ValueError("There are no times in what the program printed.")


def delegated(text: str) -> str | None:
    """Find how much of a network a delegate took.

    Args:
        text: What `benchmark_model` printed.

    Returns:
        A sentence; None if it does not say.

    Example:
    >>> delegated("Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate)"
    ...           " node, yielding 1 partitions")
    'TfLiteXNNPackDelegate took 31 of 31 nodes'
    """
    found = [f"{who} took {n} of {of} nodes" for n, of, who in _REPLACED.findall(text)]
    return ", ".join(found) or None


def sparse_layout(text: str) -> int | None:
    """Count the convolutions that ran in the layout of XNNPACK's sparse kernels.

    Args:
        text: What `benchmark_model --enable_op_profiling=true` printed.

    Returns:
        How many operators; None if there is no profile.
    """
    _, found, profile = text.rpartition("= Run Order =")
    if not found:
        return None
    # The next table lists the slowest of the same operators again.
    order, _, _ = profile.partition("= Top by")
    return sum(_SPARSE_LAYOUT in line for line in order.splitlines())


def _counted(text: str) -> Summary | None:
    # The runs to warm up come first.
    last = next(reversed([*_COUNTED.finditer(text)]), None)
    if last is None or last[1] == "0":
        return None
    numbers = {name: float(value) / 1e6 for name, value in _PAIR.findall(last[2])}
    if "curr" not in numbers:
        return None
    if "avg" not in numbers:  # All are the same, or there was only one.
        same = numbers["curr"]
        return Summary(int(last[1]), same, same, same, same)
    return Summary(
        int(last[1]),
        numbers["avg"],
        numbers["min"],
        numbers["max"],
        numbers.get("median"),
    )
