"""Runs a `.tflite` on a phone, by `adb` and LiteRT's `benchmark_model`.

The file is copied to the phone, run in the program that LiteRT's makers measure by, on
the fastest cores, and removed again whatever happens.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from keras_tickets._util.damage import reading
from keras_tickets._util.file_tensor import Array
from keras_tickets.runtime import inputs, sizes
from keras_tickets.runtime.android import adb, benchmark_output, phone
from keras_tickets.runtime.android.benchmark_model import (
    ON_PHONE,
    Bench,
    bench,
    check_program,
)
from keras_tickets.runtime.android.benchmark_output import Summary
from keras_tickets.runtime.interpreters import Arrays, Runtime
from keras_tickets.runtime.target import Runner, Runs, Timing
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.interface import OrderedInterface

# The program reports means only. In this many chunks, each in a process of its own,
# they still show a spread, and so few runs are reported one by one.
_CHUNKS = 10


class Android(Runner):
    """The phone that is attached: LiteRT's `benchmark_model`.

    Args:
        timeout: Seconds that each chunk of the runs may take.
        program: Where on the phone the program is, if it is not on this machine.

    Attributes:
        timeout: The same.
        program: The same.
    """

    name = "android"
    suffixes = (".tflite",)

    def __init__(self, timeout: float = 600.0, program: str = ON_PHONE) -> None:
        self.timeout, self.program = timeout, program

    def missing(self, suffix: str) -> str | None:
        """Say whether adb, a phone, or the program for it is missing."""
        try:
            found = adb.attached(self.timeout)
            check_program(found, phone.identity(found).abis, self.program)
        except RuntimeError as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def open(self, path: pathlib.Path) -> Iterator[OnPhone]:
        """Copy a file to the phone, and load it there once to see that it can."""
        interface = _interface(path)
        with bench(adb.attached(self.timeout), path, self.program) as ready:
            ready.run("--dry_run=true", *_runs(0, 0, self.timeout))
            yield OnPhone(ready, interface, self.timeout)

    def time(self, path: pathlib.Path, runs: Runs) -> Timing:
        """Time chunks of runs, on the phone's fastest cores."""
        interface, values = _interface(path), inputs.of_file(path, runs.shapes)
        found = adb.attached(self.timeout)
        identity, cores = phone.identity(found), phone.cores(found, runs.threads)
        before = phone.temperature(found)
        try:
            with bench(found, path, self.program, cores.prefix) as ready:
                flags = ready.send([values[port.name] for port in interface.inputs])
                flags.append(f"--num_threads={runs.threads}")
                summaries = self._chunks(ready, flags, runs)
                after = phone.temperature(found)
                profile = self._profile(ready, flags)
                runtime = f"benchmark_model, SHA-256 {ready.fingerprint}"
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by benchmark_model on {identity.name}. {error}"
            ) from error
        return Timing(
            tuple(summary.mean for summary in summaries),
            runtime,
            identity.name,
            emulated=identity.emulated,
            chunks=tuple(summary.count for summary in summaries),
            single_runs=_range(summaries),
            assumed=sizes.choose(path, runs.shapes).told,
            conditions={
                "cores": cores.note,
                "governor": phone.governor(found),
                "warmest before": before,
                "warmest after": after,
                **_kernels(profile),
            },
        )

    def _chunks(self, ready: Bench, flags: list[str], runs: Runs) -> list[Summary]:
        summaries: list[Summary] = []
        done = runs.warmup
        for size in chunks(runs.count):
            text = ready.run(*flags, *_runs(size, runs.warmup, self.timeout))
            summaries.append(_summary(text))
            done += size
            runs.progress(done)
        return summaries

    def _profile(self, ready: Bench, flags: list[str]) -> str:
        """Run once more, not timed; what it would report is not worth an error."""
        profiled = [*flags, *_runs(1, 0, self.timeout), "--enable_op_profiling=true"]
        try:
            return ready.run(*profiled)
        except RuntimeError:
            return ""


class OnPhone(Runtime):
    """A file that waits on a phone.

    Args:
        ready: The file and the program.
        interface: How the file's names lie in its graph.
        timeout: Seconds that a run may take.
    """

    def __init__(
        self, ready: Bench, interface: OrderedInterface, timeout: float
    ) -> None:
        self._ready, self._interface, self._timeout = ready, interface, timeout
        self._runs = 0
        self.inputs = [port.name for port in interface.inputs]
        self.outputs = list(interface.positions)

    def run(self, values: Arrays) -> Arrays:
        """Run the file once."""
        ordered = [
            values[port.name].astype(port.dtype, copy=False)
            for port in self._interface.inputs
        ]
        flags = self._ready.send(ordered)
        self._runs += 1
        name = f"outputs_{self._runs}"
        saved = f"--output_filepath={self._ready.folder}/{name}"
        text = self._ready.run(*flags, *_runs(1, 0, self._timeout), saved)
        content = self._ready.receive(name)
        if content is None:
            raise RuntimeError(
                "benchmark_model wrote no outputs: it is from before it had the flag "
                "--output_filepath. Get a newer one, or verify with on='arm64', which "
                f"runs the same kernels. Its last words:\n{text.strip()[-500:]}"
            )
        batch = ordered[0].shape[0] if ordered and ordered[0].ndim else 1
        arrays = split(content, self._interface, batch)
        return {name: arrays[at] for name, at in self._interface.positions.items()}


def chunks(runs: int) -> list[int]:
    """Divide runs into chunks of about the same size.

    Args:
        runs: How many there are.

    Returns:
        The sizes; each 1 where there are few.

    Example:
    >>> chunks(25)
    [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]
    """
    count = min(runs, _CHUNKS)
    return [runs // count + (index < runs % count) for index in range(count)]


def split(content: bytes, interface: OrderedInterface, batch: int) -> list[Array]:
    """Take the outputs of a file apart, which lie one after the other.

    Args:
        content: All their values.
        interface: Their shapes and types.
        batch: The size of the first axis, where the file leaves it open.

    Returns:
        The outputs, in the order of the graph.

    Raises:
        RuntimeError: If they are not so long, or more than one size is unknown.
    """
    shapes = [
        [batch if size is None and axis == 0 else size for axis, size in enumerate(s)]
        for s in (port.shape for port in interface.outputs)
    ]
    kinds = [np.dtype(port.dtype) for port in interface.outputs]
    opened = [i for i, shape in enumerate(shapes) for size in shape if size is None]
    lengths = [
        math.prod(size for size in shape if size is not None) * kind.itemsize
        for shape, kind in zip(shapes, kinds, strict=True)
    ]
    if len(opened) == 1:
        (at,) = opened
        rest = len(content) - sum(lengths) + lengths[at]
        size, odd = divmod(rest, lengths[at]) if lengths[at] else (0, 1)
        if not odd:
            shapes[at] = [size if own is None else own for own in shapes[at]]
            lengths[at] = rest
    if len(opened) > 1 or sum(lengths) != len(content):
        told = ", ".join(map(str, interface.outputs))
        raise RuntimeError(
            f"benchmark_model wrote {len(content)} bytes, which do not tell the sizes "
            f"of the outputs: {told}. Export with fixed sizes (`input_signature=`)."
        )
    starts = np.cumsum([0, *lengths])
    return [
        np.frombuffer(content[start : start + length], kind).reshape(shape)
        for start, length, kind, shape in zip(
            starts, lengths, kinds, shapes, strict=False
        )
    ]


def _runs(runs: int, warmup: int, timeout: float) -> list[str]:
    """Return the flags for so many runs: by itself the program goes by seconds."""
    return [
        *(f"--num_runs={runs}", "--min_secs=0", f"--max_secs={timeout:g}"),
        *(f"--warmup_runs={warmup}", "--warmup_min_secs=0"),
    ]


def _interface(path: pathlib.Path) -> OrderedInterface:
    with reading(f"'{path}' cannot be read as .tflite", RuntimeError):
        return TfliteFile.read(path).ordered_interface()


def _summary(text: str) -> Summary:
    try:
        return benchmark_output.summary(text)
    except ValueError as error:
        words = text.strip()[-1000:]
        raise RuntimeError(
            f"benchmark_model ended, but printed no times that are known: {words}"
        ) from error


def _range(summaries: Sequence[Summary]) -> str:
    """Return what is known of single runs."""
    fastest = min(summary.fastest for summary in summaries) * 1000
    slowest = max(summary.slowest for summary in summaries) * 1000
    return f"{fastest:.3f} to {slowest:.3f} ms"


def _kernels(profile: str) -> dict[str, str]:
    """Return what a run with profiling reports of the kernels, where it does."""
    found = {}
    if delegated := benchmark_output.delegated(profile):
        found["delegate"] = delegated
    count = benchmark_output.sparse_layout(profile)
    if count is not None:
        found["sparse path"] = f"{count} convolutions in XNNPACK's layout for it"
    return found
