"""`benchmark`: how fast a file runs, and how sure that number is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_tickets import runtime as runners
from keras_tickets._util.checks import check_counts
from keras_tickets._util.files import check_source
from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import facts
from keras_tickets.runtime.formats import SUFFIXES


@dataclasses.dataclass(frozen=True, repr=False)
class BenchmarkReport(Shown):
    """Latencies of one file on one target, in milliseconds. Prints as a table.

    Args:
        path: The file.
        on: Where it ran, as passed to `benchmark`.
        runtime: Which program ran it, with its version.
        device: Which machine it ran on.
        emulated: Whether it was an emulated one: then the times can be compared with
            each other, and with nothing else.
        threads: Threads that the runtime was allowed.
        warmup: Runs before, not timed.
        times_ms: The time of each run, in order; the mean of each chunk of runs
            where `portions` has their sizes.
        portions: How many runs each time is the mean of; empty if it is one run.
        conditions: What else the times depend on, by topic: cores, temperature.
        assumed: The sizes of inputs that the file leaves open, and who chose them.
    """

    path: str
    on: str
    runtime: str
    device: str
    emulated: bool
    threads: int
    warmup: int
    times_ms: tuple[float, ...]
    portions: tuple[int, ...] = ()
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    assumed: str = ""

    @property
    def runs(self) -> int:
        """How many runs were timed."""
        return sum(self.portions) or len(self.times_ms)

    @property
    def median_ms(self) -> float:
        """The median of the times; as all below, of means where runs came in chunks."""
        return float(np.median(self.times_ms))

    @property
    def p10_ms(self) -> float:
        """One run in ten was faster than this."""
        return float(np.percentile(self.times_ms, 10))

    @property
    def p90_ms(self) -> float:
        """One run in ten was slower than this."""
        return float(np.percentile(self.times_ms, 90))

    @property
    def min_ms(self) -> float:
        """The fastest run."""
        return min(self.times_ms)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for `json.dumps`."""
        numbers = ("runs", "median_ms", "p10_ms", "p90_ms", "min_ms")
        return {
            **dataclasses.asdict(self),
            "times_ms": list(self.times_ms),
            "portions": list(self.portions),
            **{name: getattr(self, name) for name in numbers},
        }

    def __str__(self) -> str:
        """Return the table."""
        rows = [
            ("file", self.path),
            ("device", f"{self.device} (on='{self.on}')"),
            ("runtime", f"{self.runtime}, threads: {self.threads}"),
            ("median", f"{self.median_ms:.3f} ms"),
            ("10 % to 90 %", f"{self.p10_ms:.3f} to {self.p90_ms:.3f} ms"),
            ("fastest", f"{self.min_ms:.3f} ms"),
            *self._run_rows(),
            *self.conditions.items(),
            *([("sizes", self.assumed)] if self.assumed else []),
        ]
        if self.emulated:
            return facts("Emulated time of one run: good for ratios only", rows)
        return facts("Latency of one run", rows)

    def _run_rows(self) -> list[tuple[str, str]]:
        if max(self.portions, default=1) == 1:
            return [("runs", f"{self.runs} after {self.warmup} to warm up")]
        count = len(self.portions)
        return [
            ("times above", "means of chunks of the runs, not single runs"),
            ("runs", f"{self.runs} in {count} chunks, each after {self.warmup} more"),
        ]


def benchmark(
    path: str | os.PathLike[str],
    on: str = "host",
    *,
    runs: int = 50,
    warmup: int = 10,
    threads: int = 1,
    verbose: bool = True,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> BenchmarkReport:
    """Time an exported file, one input at a time.

    Args:
        path: A `.tflite` or `.onnx` file.
        on: Where to run it: `"host"` is this machine's CPU, `"wasm"` LiteRT.js in Node,
            `"arm64"` the ARM64 runtimes on an emulated processor, `"android"` LiteRT
            on the phone that is attached.
        runs: How many runs are timed.
        warmup: How many runs before are not; on `"android"` before each chunk.
        threads: Threads that the runtime may use; `"wasm"` has one.
        verbose: Whether to show a progress bar.
        input_shapes: The shapes of its inputs by their names, for a file that leaves
            sizes open: `{"image": (1, 320, 320, 3)}`. By default a batch size is 1, and
            other sizes are those that the file notes, or the first of some usual ones
            that it runs at. The report says so.

    Returns:
        A `BenchmarkReport`: median, spread, device, runtime. LiteRT's program on a
        phone reports no single runs: there the times are means, of ten chunks.

    Raises:
        ValueError: If a number makes no sense, `on` or the suffix is unknown, or the
            file has no such input shapes.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        RuntimeError: If the runtime is not installed, or cannot run the file.

    Example:

    ```python
    kt.export(ticket, "model.tflite")
    print(kt.benchmark("model.tflite", on="host", threads=2))
    ```
    """
    file = check_source(path, SUFFIXES)
    runner = runners.get(on)
    check_counts(runs=(runs, 1), warmup=(warmup, 0), threads=(threads, 1))
    runner.check(file, threads)
    bar = keras.utils.Progbar(warmup + runs, unit_name="run", verbose=int(verbose))
    shapes = dict(input_shapes or {})
    wanted = runners.Runs(runs, warmup, threads, bar.update, shapes)
    timing = runner.time(file, wanted)
    spread = {"single runs": timing.single_runs} if timing.single_runs else {}
    return BenchmarkReport(
        path=str(path),
        on=on,
        runtime=timing.runtime,
        device=timing.device,
        emulated=timing.emulated,
        threads=threads,
        warmup=warmup,
        times_ms=tuple(second * 1000 for second in timing.seconds),
        portions=timing.chunks,
        conditions={**spread, **timing.conditions},
        assumed=timing.assumed,
    )
