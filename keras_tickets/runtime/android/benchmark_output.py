"""Reads what the benchmark programs of LiteRT print.

There are three: `benchmark_model` in C++, of which older versions know no percentiles,
and `litert-benchmark` of the Python package, which prints a table and can write JSON.
None of them tells the time of each single run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

_NUMBER = r"(-?\d[\d.]*(?:e[-+]?\d+)?)"

# `count=50 first=249042 curr=250889 min=247067 ...`; one run is `count=1 curr=249042`,
# and equal ones are `count=3 curr=12(all same)`. In microseconds.
_COUNTED = re.compile(r"\bcount=(\d+)((?: \w+=[^\s(]+)*)")
_PAIR = re.compile(rf" (\w+)={_NUMBER}")

# `Inference (avg):       58.94 ms (5 runs)`, then `Inference (min): ...`.
_TABLE = re.compile(rf"^Inference \((\w+)\):\s+{_NUMBER} ms(?: \((\d+) runs\))?", re.M)

# What the table and the JSON tell, in the order of `Summary`.
_TOLD = ("avg", "min", "max", "median")

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
        median: Their median; None where the program does not tell.
    """

    count: int
    mean: float
    fastest: float
    slowest: float
    median: float | None = None


def summary(text: str) -> Summary:
    """Finds the timed runs in what a program printed; not those to warm up.

    Args:
        text: All of it, of any of the three programs.

    Returns:
        The runs.

    Raises:
        ValueError: If there are none.

    Example:
    >>> summary("count=50 first=9 curr=9 min=8 max=12 avg=9.5 std=1").mean
    9.5e-06
    """
    for read in (_counted, _table, _json):
        if found := read(text):
            return found
    raise ValueError("There are no times in what the program printed.")


def delegated(text: str) -> str | None:
    """Finds how much of a network a delegate took.

    Args:
        text: What `benchmark_model` printed.

    Returns:
        A sentence; None if it does not tell.

    Example:
    >>> delegated("Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate)"
    ...           " node, yielding 1 partitions")
    'TfLiteXNNPackDelegate took 31 of 31 nodes'
    """
    found = [f"{who} took {n} of {of} nodes" for n, of, who in _REPLACED.findall(text)]
    return ", ".join(found) or None


def sparse_layout(text: str) -> int | None:
    """Counts the convolutions that ran in the layout of XNNPACK's sparse kernels.

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
    told = {name: float(value) / 1e6 for name, value in _PAIR.findall(last[2])}
    if "curr" not in told:
        return None
    if "avg" not in told:  # All are the same, or there was only one.
        same = told["curr"]
        return Summary(int(last[1]), same, same, same, same)
    return Summary(
        int(last[1]), told["avg"], told["min"], told["max"], told.get("median")
    )


def _table(text: str) -> Summary | None:
    rows = {name: (value, runs) for name, value, runs in _TABLE.findall(text)}
    if not {*_TOLD} <= rows.keys():
        return None
    return _of_milliseconds(
        int(rows["avg"][1]), {name: float(value) for name, (value, _) in rows.items()}
    )


def _json(text: str) -> Summary | None:
    try:
        told: dict[str, Any] = json.loads(text)["latency"]
        return _of_milliseconds(
            told["num_runs"], {name: told[f"{name}_ms"] for name in _TOLD}
        )
    except (ValueError, TypeError, KeyError):
        return None


def _of_milliseconds(count: int, told: dict[str, float]) -> Summary:
    return Summary(count, *(told[name] / 1000 for name in _TOLD))
