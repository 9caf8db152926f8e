"""What every place where a file can run has to offer."""

from __future__ import annotations

import abc
import pathlib
from contextlib import AbstractContextManager
from typing import Any

from keras_tickets.runtime.interpreters import Runtime
from keras_tickets.runtime.timing import (
    Runs,
    Timing,
)

# Kind of node -> for each sparse kernel its name, the outputs of each node that ran in
# it, and how often it was called.
Counted = dict[str, list[dict[str, Any]]]


class Runner(abc.ABC):
    """A place where exported files run.

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
        """Says what keeps files of this suffix from running here.

        It looks, and starts nothing slow: it is called before each run.

        Args:
            suffix: One of `suffixes`.

        Returns:
            None if they can run; else what is missing and the command that gets it, in
            one sentence or two, for the user.
        """

    @abc.abstractmethod
    def open(self, path: pathlib.Path) -> AbstractContextManager[Runtime]:
        """Loads a file, to run it on any inputs within a `with` block.

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
        """Times single runs at batch size 1, on inputs of `inputs.py`.

        Args:
            path: A file with one of `suffixes`.
            runs: How many, and on how many threads.

        Returns:
            The times.

        Raises:
            RuntimeError: If the file cannot be loaded or run.
        """

    def check(self, path: pathlib.Path, threads: int = 1) -> None:
        """Makes sure that a file can run here, before any work.

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
            raise RuntimeError(f"on='{self.name}' is not available here. {missing}")

    def check_arguments(self, path: pathlib.Path, threads: int = 1) -> None:
        """Makes sure that a file could run here, once all is installed.

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
    """A place that also tells which nodes ran in a sparse kernel."""

    @abc.abstractmethod
    def count(self, path: pathlib.Path) -> Counted:
        """Runs a file once, and counts the nodes that run in sparse kernels.

        Args:
            path: A `.tflite` file.

        Returns:
            What was counted, as `{"convolution": [...], "dense": [...]}`, each entry as
            `{"kernel": "f32 32x1", "outputs": [64, 96], "calls": 2}`.

        Raises:
            RuntimeError: If the file cannot be loaded or run, or the runtime is not the
                one whose insides are known.
        """
