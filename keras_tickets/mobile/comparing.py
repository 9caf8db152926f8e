"""`compare`: several files, several places, one table."""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_tickets import runtime as runners
from keras_tickets._util.counts import check_counts
from keras_tickets._util.files import (
    check_source,
    gzip_size,
)
from keras_tickets.mobile.comparison_table import (
    ComparisonTable,
    Latency,
    Place,
    Row,
)
from keras_tickets.runtime.formats import SUFFIXES

Path = str | os.PathLike[str]


def compare(
    files: Mapping[str, Path] | Sequence[Path],
    on: str | Sequence[str] = "host",
    *,
    accuracy: Mapping[str, float] | None = None,
    turns: int = 5,
    runs: int = 20,
    warmup: int = 10,
    threads: int = 1,
    verbose: bool = True,
) -> ComparisonTable:
    """Times files beside each other: sizes, latencies, speed-ups in one table.

    A machine is faster in one minute than in the next. So the files take turns, in
    alternating order, and a speed-up is the median ratio to the first file's time in
    the same turn: ratios within a run can be trusted where single times cannot.

    Args:
        files: The files by the names to show, or only their paths. The first is what
            the others are compared with.
        on: Where to run them: names that `benchmark` takes.
        accuracy: What is known of files, by their names in `files`, to be shown.
        turns: How often each file is run in each place.
        runs: How many runs of a turn are timed.
        warmup: How many runs before are not, in each turn.
        threads: Threads that a runtime may use.
        verbose: Whether to show a progress bar.

    Returns:
        A `ComparisonTable`: prints, and turns into Markdown or JSON.

    Raises:
        ValueError: If there is no file, a number makes no sense, a place is unknown or
            does not run a file's format, or `accuracy` names no file.
        FileNotFoundError: If there is no such file.
        RuntimeError: If a runtime is not available, or cannot run a file.

    Example:

    ```python
    kt.export(model, "dense.tflite")
    kt.export(ticket, "sparse.tflite")
    files = {"dense": "dense.tflite", "90 % zeros": "sparse.tflite"}
    table = kt.mobile.compare(files, on=["host", "wasm"])
    print(table.to_markdown())
    ```
    """
    paths = _named(files)
    names = [on] if isinstance(on, str) else list(dict.fromkeys(on))
    known = dict(accuracy or {})
    if unknown := [name for name in known if name not in paths]:
        raise ValueError(
            f"`accuracy` names {unknown[0]!r}, which is none of the files: "
            f"{', '.join(map(repr, paths))}."
        )
    check_counts(
        turns=(turns, 1), runs=(runs, 1), warmup=(warmup, 0), threads=(threads, 1)
    )
    places = {name: runners.get(name) for name in names}
    pairs = list(itertools.product(places.values(), paths.values()))
    for runner, path in pairs:  # before anybody is asked to install anything
        runner.check_arguments(path, threads)
    for runner, path in pairs:
        runner.check(path, threads)

    total = len(places) * turns * len(paths)
    bar = keras.utils.Progbar(total, unit_name="turn", verbose=int(verbose))

    wanted = runners.Runs(runs, warmup, threads)

    def time(runner: runners.Runner, name: str) -> runners.Timing:
        timing = runner.time(paths[name], wanted)
        bar.add(1)
        return timing

    timed = {
        place: _in_turns(list(paths), turns, functools.partial(time, runner))
        for place, runner in places.items()
    }
    rows = tuple(
        _row(name, path, known.get(name), {p: timed[p][0][name] for p in places})
        for name, path in paths.items()
    )
    return ComparisonTable(rows, {p: timed[p][1] for p in places}, turns, runs, threads)


def _named(files: Mapping[str, Path] | Sequence[Path]) -> dict[str, pathlib.Path]:
    """The files by name; equal paths are one file."""
    if isinstance(files, str | os.PathLike):
        files = [files]
    named = files if isinstance(files, Mapping) else {str(f): f for f in files}
    if not named:
        raise ValueError(f"There is no file to compare. Received: files={files!r}")
    return {name: check_source(path, SUFFIXES) for name, path in named.items()}


def _in_turns(
    names: list[str], turns: int, time: Callable[[str], runners.Timing]
) -> tuple[dict[str, Latency], Place]:
    """Each file's latency, and what ran it."""
    medians: dict[str, list[float]] = {name: [] for name in names}
    conditions: list[tuple[str, Mapping[str, str]]] = []
    runtimes: dict[str, None] = {}  # In order; there is one for each format.
    means = False
    for number in range(turns):
        for name in reversed(names) if number % 2 else names:
            timing = time(name)
            runtimes[timing.runtime] = None
            conditions.append((name, timing.conditions))
            means |= max(timing.portions, default=1) > 1
            medians[name].append(1000 * float(np.median(timing.seconds)))
    base = np.array(medians[names[0]])
    latencies = {
        name: Latency(
            median_ms=float(np.median(times)),
            speed_up=float(np.median(base / times)),
            speed_up_low=float(np.min(base / times)),
            speed_up_high=float(np.max(base / times)),
        )
        for name, times in medians.items()
    }
    runtime = " and ".join(runtimes)
    told = _over_time(conditions)
    return latencies, Place(runtime, timing.device, timing.emulated, means, told)


def _over_time(conditions: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """What times depended on, by topic, from what was told of a file in each turn."""
    topics = dict.fromkeys(topic for _, told in conditions for topic in told)
    return {
        topic: _in_words(
            [(name, told.get(topic, "not told")) for name, told in conditions]
        )
        for topic in topics
    }


def _in_words(told: Sequence[tuple[str, str]]) -> str:
    """The one thing that was told; else that of each file, or the first and last."""
    _, values = zip(*told, strict=True)
    if len({*values}) == 1:
        return values[0]
    by_file = dict.fromkeys(told)
    if len(by_file) == len({name for name, _ in told}):
        return ", ".join(f"{value} ({name})" for name, value in by_file)
    return f"{values[0]} at first, {values[-1]} at last"


def _row(
    name: str,
    path: pathlib.Path,
    accuracy: float | None,
    latencies: dict[str, Latency],
) -> Row:
    content = path.read_bytes()
    compressed = gzip_size(content)
    return Row(name, str(path), len(content), compressed, accuracy, latencies)
