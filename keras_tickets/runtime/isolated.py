"""A runtime in a process of its own: what crashes there does not crash here.

Some files kill the runtime that loads them. An export must outlive that, say so, and
leave nothing behind.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_tickets._util.process import (
    Conversation,
    EndedError,
    RefusedError,
    converse,
)
from keras_tickets.runtime import interpreters
from keras_tickets.runtime.interpreters import Arrays, Runtime

# A runtime may take this much memory, and so many times what its file takes; more where
# the variable says so, in GiB.
_FREE, _RATIO = 2**32, 16
_VARIABLE = "KERAS_TICKETS_MEMORY"


class Isolated(Runtime):
    """A file that is loaded in another process.

    Args:
        conversation: With the process, just started.
        folder: Where arrays are exchanged.

    Raises:
        RuntimeError: If the runtime refuses the file, dies of it, or is silent for
            too long.
    """

    def __init__(self, conversation: Conversation, folder: pathlib.Path) -> None:
        self._conversation, self._folder = conversation, folder
        names = conversation.answer("loaded")
        self.inputs, self.outputs = names["inputs"], names["outputs"]

    def run(self, values: Arrays) -> Arrays:
        """Run the file once."""
        received = self._folder / "outputs.npz"
        self.peak_bytes = self._ask(values, outputs=str(received))["peak"]
        with np.load(received) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(self.outputs)}

    def time(
        self, values: Arrays, runs: int, progress: Callable[[int], None]
    ) -> list[float]:
        """Run the file several times on the same inputs.

        Args:
            values: The inputs.
            runs: How many times, at least once.
            progress: Called with the number of runs done so far.

        Returns:
            The seconds of each run, in order; the inputs' way there is not counted.
        """
        seconds: list[float] = self._ask(values, runs=runs)["seconds"]
        progress(len(seconds))
        while len(seconds) < runs:
            seconds += self._conversation.answer("run")["seconds"]
            progress(len(seconds))
        return seconds

    def shapes(self, values: Arrays) -> dict[int, list[int]]:
        """Run a `.tflite` once; return the shapes of its tensors by their numbers."""
        found = self._ask(values, shapes=True)["shapes"]
        return {int(number): shape for number, shape in found.items()}

    def _ask(self, values: Arrays, **question: Any) -> dict[str, Any]:
        sent = self._folder / "inputs.npz"
        np.savez(sent, *values.values())
        names = {name: f"arr_{i}" for i, name in enumerate(values)}
        asked = {"inputs": str(sent), "names": names, **question}
        return self._conversation.ask(asked, "run")


@contextlib.contextmanager
def isolated(
    path: pathlib.Path,
    *,
    python: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
    threads: int = 0,
    timeout: float | None = None,
    reference: bool = False,
) -> Iterator[Isolated]:
    """Load a file in a process that ends with the block.

    Args:
        path: A `.tflite` or `.onnx` file.
        python: The command of a Python that has NumPy and the runtime.
        environment: Its environment variables; None hands on this process' own.
        threads: Threads that the runtime may use; 0 lets it choose.
        timeout: Seconds that loading and each run may take; None waits for ever.
        reference: Whether the runtime's plain kernels run it, not its fast ones.

    Yields:
        The runtime.
    """
    # -P: a module beside the program must not hide a package of the same name.
    command = [*python, "-P", interpreters.__file__, str(path), str(threads)]
    command += [interpreters.REFERENCE] if reference else []
    memory = _memory(path)
    command += [f"{interpreters.MEMORY}{memory}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        converse(command, environment, timeout) as conversation,
    ):
        try:
            yield Isolated(conversation, pathlib.Path(folder))
        except (RefusedError, EndedError) as error:
            if not re.search(r"alloc|memory", str(error), re.IGNORECASE):
                raise
            raise RuntimeError(
                f"{error} It may take {memory / 2**30:.1f} GiB of memory; the "
                f"environment variable {_VARIABLE}=64 allows 64."
            ) from error


def _memory(path: pathlib.Path) -> int:
    """Return the bytes that a runtime may take: damaged files ask for any number."""
    if said := os.environ.get(_VARIABLE):
        try:
            return int(float(said) * 2**30)
        except (ValueError, OverflowError):
            raise RuntimeError(
                f"{_VARIABLE} is the memory in GiB that running a file may take. "
                f"Received: {said!r}"
            ) from None
    beside = path.parent.glob(f"{glob.escape(path.name)}*")
    return _FREE + _RATIO * sum(file.stat().st_size for file in beside)
