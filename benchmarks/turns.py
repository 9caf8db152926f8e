"""Two measurements in interleaved rounds: what else the machine does meets both."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import keras_tickets as kt
from keras_tickets import runtime
from keras_tickets.mobile.comparing import speed_up
from keras_tickets.runtime import inputs
from keras_tickets.runtime.wasm import LiteRTJs

# Runs until V8 has compiled all that a file needs.
_WARMUP = 200


def alternate(
    first: Callable[[], float], second: Callable[[], float], turns: int
) -> tuple[list[float], list[float]]:
    """Measures both in each turn, the one or the other first."""
    measured: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            measured[which].append((first, second)[which]())
    return measured


def ratios(dense: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """The median of the rounds' own ratios, and their spread."""
    names = ("speed_up", "speed_up_p10", "speed_up_p90")
    found = speed_up(dense, other, percentiles=(50, 10, 90))
    return {name: round(x, 3) for name, x in zip(names, found, strict=True)}


def both(
    turn: Callable[[pathlib.Path], float],
    dense: pathlib.Path,
    file: pathlib.Path,
    turns: int,
) -> tuple[list[float], list[float]]:
    """Measures two files in each turn, the one or the other first."""
    return alternate(
        functools.partial(turn, dense), functools.partial(turn, file), turns
    )


def in_real_time(
    dense: pathlib.Path, file: pathlib.Path, turns: int, runs: int
) -> dict[str, float]:
    """Medians on this machine, and how much faster the other file is."""

    def turn(path: pathlib.Path) -> float:
        return kt.benchmark(path, runs=runs, warmup=runs // 2, verbose=False).median_ms

    times = both(turn, dense, file, turns)
    return {
        "dense_ms": round(float(np.median(times[0])), 4),
        "ms": round(float(np.median(times[1])), 4),
        **ratios(*times),
    }


def in_turns(paths: list[pathlib.Path], turns: int, runs: int) -> dict[str, Any]:
    """Medians in LiteRT.js, and how much faster the second file is."""
    wasm = runtime.get("wasm")
    with contextlib.ExitStack() as block:
        files = [block.enter_context(wasm.open(path)) for path in paths]
        values = [inputs.of_file(path) for path in paths]
        for file, own in zip(files, values, strict=True):
            median_of_turn(file, own, max(runs, _WARMUP))
        dense, other = (
            functools.partial(median_of_turn, file, own, runs)
            for file, own in zip(files, values, strict=True)
        )
        medians = alternate(dense, other, turns)
        return {
            "runtime": files[0].runtime,
            "dense_ms": round(1000 * statistics.median(medians[0]), 4),
            "ms": round(1000 * statistics.median(medians[1]), 4),
            **ratios(*medians),
        }


def median_of_turn(file: LiteRTJs, values: Any, runs: int) -> float:
    return statistics.median(file.time(values, runs))
