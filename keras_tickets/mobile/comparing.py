"""`compare`: several files on several targets, as one table."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_tickets import runtime as runners
from keras_tickets._util import arguments
from keras_tickets._util.checks import check_counts
from keras_tickets._util.files import check_source, gzip_size
from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import table
from keras_tickets.runtime import sizes
from keras_tickets.runtime.formats import SUFFIXES

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Latency:
    """How fast a file ran on one target.

    Args:
        median_ms: The median over the rounds of the median of a round, in milliseconds;
            the latter of means where the target reports no single runs.
        speed_up: The median over the rounds of the first file's time over this one's.
        speed_up_low: The least of these ratios.
        speed_up_high: The largest.
    """

    median_ms: float
    speed_up: float
    speed_up_low: float
    speed_up_high: float


@dataclasses.dataclass(frozen=True)
class Target:
    """What ran the files.

    Args:
        runtime: Which program, with its version; one for each format.
        device: Which machine.
        emulated: Whether it was an emulated one, so that its times say nothing.
        means: Whether its times are means of several runs, and no single ones.
        conditions: What else its times depend on, by topic: cores, temperature.
    """

    runtime: str
    device: str
    emulated: bool
    means: bool = False
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """One file.

    Args:
        name: What the caller calls it.
        path: Where it lies.
        bytes: Its size.
        gzip_bytes: Its size compressed, as app stores deliver it.
        accuracy: What the caller says of it.
        latencies: How fast it ran on each target.
    """

    name: str
    path: str
    bytes: int
    gzip_bytes: int
    accuracy: float | None
    latencies: Mapping[str, Latency]


@dataclasses.dataclass(frozen=True, repr=False)
class ComparisonTable(Shown):
    """Files beside each other; the first is what the others are compared with.

    Args:
        rows: The files.
        places: What ran them, by target.
        turns: In how many rounds each ran, interleaved with the others.
        runs: How many runs of a round were timed.
        threads: Threads that a runtime was allowed.
        assumed: For each file that leaves sizes open its sizes, and who chose them.

    Example:
    >>> wasm = Target("LiteRT.js 2.5", "a desk", emulated=False)
    >>> rows = [
    ...     Row(name, f"{name}.tflite", size, size // 2, None, {"wasm": latency})
    ...     for name, size, latency in [
    ...         ("dense", 4000, Latency(3.0, 1.0, 1.0, 1.0)),
    ...         ("sparse", 1000, Latency(1.5, 2.0, 1.9, 2.2)),
    ...     ]
    ... ]
    >>> print(ComparisonTable(tuple(rows), {"wasm": wasm}, 5, 20, 1).to_markdown())
    | file | bytes | gzip | wasm, ms | wasm, speed-up |
    | --- | ---: | ---: | ---: | ---: |
    | dense | 4,000 | 2,000 | 3 | 1.00 (1.00 to 1.00) |
    | sparse | 1,000 | 500 | 1.5 | 2.00 (1.90 to 2.20) |
    <BLANKLINE>
    - wasm: LiteRT.js 2.5, a desk
    - threads: 1; 5 rounds of 20 runs, medians (least to most)
    """

    rows: tuple[Row, ...]
    places: Mapping[str, Target]
    turns: int
    runs: int
    threads: int
    assumed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for `json.dumps`."""
        return dataclasses.asdict(self)

    def to_markdown(self) -> str:
        """Return the table in Markdown, with what it was measured on below."""
        header, *cells = self._cells()
        rule = ["---", *["---:"] * (len(header) - 1)]
        for row in cells:
            row[0] = " ".join(row[0].split()).replace("|", r"\|")
        lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *cells)]
        return "\n".join([*lines, "", *(f"- {note}" for note in self._notes())])

    def __str__(self) -> str:
        """Return the table."""
        (first, *others), *cells = self._cells()
        columns = (first, *(f">{name}" for name in others))
        return table("", columns, cells, notes=self._notes())

    def _cells(self) -> list[list[str]]:
        rated = any(row.accuracy is not None for row in self.rows)
        header = ["file", "bytes", "gzip", *["accuracy"] * rated]
        for name, target in self.places.items():
            # Emulated milliseconds are nobody's: only their ratio is shown.
            header += [f"{name}, ms"] * (not target.emulated)
            header.append(
                f"{name}, {'emulated ratio' if target.emulated else 'speed-up'}"
            )
        return [header, *(self._row(row, rated) for row in self.rows)]

    def _row(self, row: Row, rated: bool) -> list[str]:
        cells = [row.name, f"{row.bytes:,}", f"{row.gzip_bytes:,}"]
        if rated:
            cells.append("" if row.accuracy is None else f"{row.accuracy:.4g}")
        for name, target in self.places.items():
            found = row.latencies[name]
            cells += [f"{found.median_ms:.3g}"] * (not target.emulated)
            spread = f"{found.speed_up_low:.2f} to {found.speed_up_high:.2f}"
            cells.append(f"{found.speed_up:.2f} ({spread})")
        return cells

    def _notes(self) -> list[str]:
        notes = [
            f"{name}: {target.runtime}, {target.device}"
            + ", emulated" * target.emulated
            + ", means of several runs" * target.means
            + "".join(f"; {topic}: {said}" for topic, said in target.conditions.items())
            for name, target in self.places.items()
        ]
        notes.append(
            f"threads: {self.threads}; {self.turns} rounds of {self.runs} runs, "
            "medians (least to most)"
        )
        notes += [
            f"{name}: {line}"
            for name, told in self.assumed.items()
            for line in told.splitlines()
        ]
        return notes


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
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> ComparisonTable:
    """Time files beside each other: sizes, latencies, speed-ups in one table.

    A machine is faster in one minute than in the next. So the files run in interleaved
    rounds, in alternating order, and a speed-up is the median ratio to the first file's
    time in the same round: such ratios can be trusted where single times cannot.

    Args:
        files: The files by the names to show, or only their paths. The first is what
            the others are compared with.
        on: Where to run them: names that `benchmark` takes.
        accuracy: What is known of files, by their names in `files`, to be shown.
        turns: In how many rounds each file is run on each target.
        runs: How many runs of a round are timed.
        warmup: How many runs before are not, in each round.
        threads: Threads that a runtime may use.
        verbose: Whether to show a progress bar.
        input_shapes: The shapes of inputs by their names, where files leave sizes open;
            each file takes those of its own inputs. See `benchmark`.

    Returns:
        A `ComparisonTable`: prints, and turns into Markdown or JSON.

    Raises:
        ValueError: If there is no file, a number makes no sense, a target is unknown or
            does not run a file's format, `accuracy` names no file, or `input_shapes`
            fits none.
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
    known = _rated(accuracy)
    if unknown := [name for name in known if name not in paths]:
        raise ValueError(
            f"`accuracy` names {unknown[0]!r}, which is none of the files: "
            f"{', '.join(map(repr, paths))}."
        )
    check_counts(
        turns=(turns, 1), runs=(runs, 1), warmup=(warmup, 0), threads=(threads, 1)
    )
    targets = {name: runners.get(name) for name in names}
    pairs = list(itertools.product(targets.values(), paths.values()))
    for runner, path in pairs:  # before anybody is asked to install anything
        runner.check_arguments(path, threads)
    for runner, path in pairs:
        runner.check(path, threads)

    total = len(targets) * turns * len(paths)
    bar = keras.utils.Progbar(total, unit_name="round", verbose=int(verbose))

    wanted = {
        name: runners.Runs(runs, warmup, threads, shapes=own)
        for name, own in _shapes(paths, input_shapes).items()
    }
    assumed: dict[str, str] = {}

    def time(runner: runners.Runner, name: str) -> runners.Timing:
        timing = runner.time(paths[name], wanted[name])
        if timing.assumed:
            assumed[name] = timing.assumed
        bar.add(1)
        return timing

    timed = {
        target: _in_rounds(list(paths), turns, functools.partial(time, runner))
        for target, runner in targets.items()
    }
    rows = tuple(
        _row(name, path, known.get(name), {t: timed[t][0][name] for t in targets})
        for name, path in paths.items()
    )
    return ComparisonTable(
        rows, {t: timed[t][1] for t in targets}, turns, runs, threads, assumed
    )


def speed_up(
    base: Sequence[float],
    times: Sequence[float],
    percentiles: Sequence[float] = (50, 0, 100),
) -> list[float]:
    """Return how much faster than `base` a file ran: base over times, round by round.

    Args:
        base: The times of the first file, by round.
        times: Those of the other one, in the same rounds.
        percentiles: Which ones of the ratios: by default median, least and largest.

    Example:
    >>> speed_up([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    [3.0, 2.0, 4.0]
    """
    return [float(x) for x in np.percentile(np.divide(base, times), percentiles)]


def _named(files: Mapping[str, Path] | Sequence[Path]) -> dict[str, pathlib.Path]:
    """Return the files by name; equal paths are one file."""
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not isinstance(files, Mapping | Sequence):
        raise TypeError(
            "`files` are paths, or a mapping of names to paths, such as "
            "{'dense': 'dense.tflite'}. Received: files of type "
            f"{type(files).__name__}"
        )
    named = files if isinstance(files, Mapping) else {str(f): f for f in files}
    if not named:
        raise ValueError(f"There is no file to compare. Received: files={files!r}")
    return {name: check_source(path, SUFFIXES) for name, path in named.items()}


def _rated(accuracy: Any) -> dict[str, float]:
    """Return what is known of files, by their names."""
    rated = {} if accuracy is None else accuracy
    if isinstance(rated, Mapping):
        given = {name: value for name, value in rated.items() if value is not None}
        known = {name: arguments.as_number(value) for name, value in given.items()}
        numbers = {name: value for name, value in known.items() if value is not None}
        if len(numbers) == len(given):
            return numbers
    raise TypeError(
        "`accuracy` is what you know of files, to be shown beside their times: "
        "numbers by the names in `files`, such as {'dense': 0.98}. Received: "
        f"{accuracy!r:.80}. No accuracy is measured here: model.evaluate(x, y) tells "
        "that of a model, and kt.verify whether a file computes what the model does."
    )


def _shapes(
    paths: Mapping[str, pathlib.Path], given: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return for each file the shapes that are given for inputs of its own."""
    if not given:
        return {name: {} for name in paths}
    inputs = {name: sizes.names(path) for name, path in paths.items()}
    known = dict.fromkeys(itertools.chain.from_iterable(inputs.values()))
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"`input_shapes` names {unknown[0]!r}, which is an input of none of the "
            f"files: {', '.join(map(repr, known))}."
        )
    own = {
        name: {key: shape for key, shape in given.items() if key in inputs[name]}
        for name in paths
    }
    for name, path in paths.items():  # All of them before one is run.
        sizes.choose(path, own[name])
    return own


def _in_rounds(
    names: list[str], rounds: int, time: Callable[[str], runners.Timing]
) -> tuple[dict[str, Latency], Target]:
    """Return each file's latency, and what ran it."""
    medians: dict[str, list[float]] = {name: [] for name in names}
    conditions: list[tuple[str, Mapping[str, str]]] = []
    runtimes: dict[str, None] = {}  # In order; there is one for each format.
    means = False
    for number in range(rounds):
        for name in reversed(names) if number % 2 else names:
            timing = time(name)
            runtimes[timing.runtime] = None
            conditions.append((name, timing.conditions))
            means |= max(timing.chunks, default=1) > 1
            medians[name].append(1000 * float(np.median(timing.seconds)))
    latencies = {
        name: Latency(float(np.median(times)), *speed_up(medians[names[0]], times))
        for name, times in medians.items()
    }
    runtime = " and ".join(runtimes)
    reported = _over_time(conditions)
    return latencies, Target(runtime, timing.device, timing.emulated, means, reported)


def _over_time(conditions: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Return what times depended on, by topic, from what each round reported."""
    topics = dict.fromkeys(topic for _, reported in conditions for topic in reported)
    return {
        topic: _in_words(
            [
                (name, reported.get(topic, "not reported"))
                for name, reported in conditions
            ]
        )
        for topic in topics
    }


def _in_words(reported: Sequence[tuple[str, str]]) -> str:
    """Return the one thing reported; else that of each file, or the first and last."""
    _, values = zip(*reported, strict=True)
    if len({*values}) == 1:
        return values[0]
    by_file = dict.fromkeys(reported)
    if len(by_file) == len({name for name, _ in reported}):
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
