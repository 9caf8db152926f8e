"""Targets, machines that files run on: what each offers, is asked for and returns."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from keras_tickets._util.errors import UnavailableError
from keras_tickets.runtime.interpreters import Runtime

# Where runners lie that have to be built first (see `building.py`).
VARIABLE = "KERAS_TICKETS_RUNNERS"

# Kind of node -> for each sparse kernel its name, the outputs of each node that ran in
# it, and how often it was called.
Counted = dict[str, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs that are to be timed.

    Args:
        count: How many runs are timed.
        warmup: How many runs before are not.
        threads: Threads that the runtime may use.
        progress: Called with the number of runs done so far, the warm-up included,
            outside of the timed part.
        shapes: Input name -> shape, where somebody chose one; others are those of
            `sizes.choose`.
    """

    count: int
    warmup: int = 0
    threads: int = 1
    progress: Callable[[int], None] = lambda done: None
    shapes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many runs there are, the warm-up included."""
        return self.warmup + self.count


@dataclasses.dataclass(frozen=True)
class Timing:
    """Timed runs of one file on one target.

    Args:
        seconds: The time of each run, in order, without the warm-up; or the mean of
            each chunk of runs, where single runs are not reported.
        runtime: Which program ran the file, with its version.
        device: Which machine it ran on.
        emulated: Whether the machine was emulated, so that only ratios count.
        chunks: How many runs each time is the mean of; empty if it is one run.
        single_runs: What single runs took, in words, where each time is the mean of
            several.
        conditions: What else the times depend on, in words by topic.
        assumed: The sizes of inputs that the file leaves open, and who chose them.
    """

    seconds: tuple[float, ...]
    runtime: str
    device: str
    emulated: bool = False
    chunks: tuple[int, ...] = ()
    single_runs: str = ""
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    assumed: str = ""


class Runner(abc.ABC):
    """A target: a machine and a runtime that exported files run on.

    Attributes:
        name: What `on=` calls it.
        suffixes: The suffixes of the files that it runs.
        most_threads: How many threads its runtime can use; None is any number.
    """

    name: str
    suffixes: tuple[str, ...]
    most_threads: int | None = None

    @abc.abstractmethod
    def missing(self, suffix: str) -> str | None:
        """Say what keeps files of this suffix from running here.

        It looks, and starts nothing slow: it is called before each run.

        Args:
            suffix: One of `suffixes`.

        Returns:
            None if they can run; else what is missing and the command that gets it, in
            one sentence or two, for the user.
        """

    @abc.abstractmethod
    def open(self, path: pathlib.Path) -> AbstractContextManager[Runtime]:
        """Load a file, to run it on any inputs within a `with` block.

        Args:
            path: A file with one of `suffixes`.

        Returns:
            The loaded file: names of inputs and outputs, arrays in, arrays out. When
            the block ends, for whatever reason, no process or file is left of it.

        Raises:
            RuntimeError: If the file cannot be loaded; from `run`, if it cannot run.
        """

    @abc.abstractmethod
    def time(self, path: pathlib.Path, runs: Runs) -> Timing:
        """Time single runs at batch size 1, on inputs of `inputs.py`.

        Args:
            path: A file with one of `suffixes`.
            runs: How many, and on how many threads.

        Returns:
            The times.

        Raises:
            RuntimeError: If the file cannot be loaded or run.
        """

    def check(self, path: pathlib.Path, threads: int = 1) -> None:
        """Make sure that a file can run here, before any work.

        Args:
            path: A `.tflite` or `.onnx` file.
            threads: Threads that the runtime shall use.

        Raises:
            ValueError: If files of this suffix never run here, or the runtime cannot
                use so many threads.
            RuntimeError: If something has to be installed first.
        """
        self.check_arguments(path, threads)
        if missing := self.missing(path.suffix):
            raise UnavailableError(f"on='{self.name}' is not available here. {missing}")

    def check_arguments(self, path: pathlib.Path, threads: int = 1) -> None:
        """Make sure that a file could run here, once all is installed.

        Args:
            path: A `.tflite` or `.onnx` file.
            threads: Threads that the runtime shall use.

        Raises:
            ValueError: If files of this suffix never run here, or the runtime cannot
                use so many threads.
        """
        if path.suffix not in self.suffixes:
            raise ValueError(
                f"on='{self.name}' runs {' and '.join(self.suffixes)} files only. "
                f"Received: path='{path}'. on='host' runs both formats."
            )
        if self.most_threads is not None and threads > self.most_threads:
            raise ValueError(
                f"on='{self.name}' runs on {self.most_threads} thread only: expected "
                f"threads={self.most_threads}. Received: threads={threads}"
            )


class CountingRunner(Runner):
    """A target that also reports which nodes ran in a sparse kernel."""

    @abc.abstractmethod
    def count(
        self, path: pathlib.Path, shapes: Mapping[str, Any] | None = None
    ) -> Counted:
        """Run a file once, and count the nodes that run in sparse kernels.

        Args:
            path: A `.tflite` file.
            shapes: Input name -> shape, where somebody chose one.

        Returns:
            What was counted, as `{"convolution": [...], "dense": [...]}`, each entry as
            `{"kernel": "f32 32x1", "outputs": [64, 96], "calls": 2}`.

        Raises:
            RuntimeError: If the file cannot be loaded or run, or the runtime is not the
                one whose insides are known.
        """


def folder_of(name: str) -> pathlib.Path:
    """Return the folder of a runner, whether it was built or not.

    It is a folder of this name in `$KERAS_TICKETS_RUNNERS`; where that is not set, in
    `$XDG_CACHE_HOME/keras_tickets` or `~/.cache/keras_tickets`. The scripts that build
    runners use the same rule.

    Args:
        name: The runner's name.

    Returns:
        An absolute path.
    """
    if chosen := os.environ.get(VARIABLE):
        return pathlib.Path(chosen).absolute() / name
    cache = os.environ.get("XDG_CACHE_HOME")
    base = pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache"
    return base / "keras_tickets" / name
