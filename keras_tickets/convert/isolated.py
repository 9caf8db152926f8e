"""A runtime in a process of its own: what crashes there does not crash here.

Some files kill the runtime that loads them. An export must outlive that, say so, and
leave nothing behind.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from keras_tickets.convert import runtimes
from keras_tickets.convert.conversation import Conversation, converse
from keras_tickets.convert.runtimes import Arrays, Runtime


class Isolated(Runtime):
    """A file that is loaded in another process.

    Args:
        conversation: With the process, just started.
        folder: Where arrays are exchanged.

    Attributes:
        peak_bytes: The most memory that loading and running took, the runtime's own
            code apart; 0 where the system does not tell.

    Raises:
        RuntimeError: If the runtime refuses the file, or dies of it.
    """

    def __init__(self, conversation: Conversation, folder: pathlib.Path) -> None:
        self._conversation, self._folder = conversation, folder
        names = conversation.answer("loaded")
        self.inputs, self.outputs = names["inputs"], names["outputs"]
        self.peak_bytes = 0

    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""
        sent, received = self._folder / "inputs.npz", self._folder / "outputs.npz"
        np.savez(sent, *values.values())
        names = {name: f"arr_{i}" for i, name in enumerate(values)}
        question = {"inputs": str(sent), "outputs": str(received), "names": names}
        self.peak_bytes = self._conversation.ask(question, "run")["peak"]
        with np.load(received) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(self.outputs)}


@contextlib.contextmanager
def isolated(path: pathlib.Path, *, reference: bool = False) -> Iterator[Isolated]:
    """Loads a file in a process that ends with the block.

    Args:
        path: A `.tflite` or `.onnx` file.
        reference: Whether the runtime's plain kernels run it, not its fast ones.

    Yields:
        The runtime.
    """
    # -P: the folder of the program holds an `onnx.py`, which is not the package.
    command = [sys.executable, "-P", runtimes.__file__, str(path)]
    command += [runtimes.REFERENCE] if reference else []
    with tempfile.TemporaryDirectory() as folder, converse(command) as conversation:
        yield Isolated(conversation, pathlib.Path(folder))
