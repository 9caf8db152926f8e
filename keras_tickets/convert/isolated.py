"""A runtime in a process of its own: what crashes there does not crash here.

Some files kill the runtime that loads them. An export must outlive that, say so, and
leave nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_tickets.convert import runtimes
from keras_tickets.convert.runtimes import Arrays, Runtime


class Isolated(Runtime):
    """A file that is loaded in another process.

    Args:
        process: The process, just started.
        folder: Where arrays are exchanged.

    Attributes:
        peak_bytes: The most memory that loading and running took, the runtime's own
            code apart; 0 where the system does not tell.

    Raises:
        RuntimeError: If the runtime refuses the file, or dies of it.
    """

    def __init__(self, process: subprocess.Popen[str], folder: pathlib.Path) -> None:
        self._process, self._folder = process, folder
        names = self._answer("loaded")
        self.inputs, self.outputs = names["inputs"], names["outputs"]
        self.peak_bytes = 0

    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""
        sent, received = self._folder / "inputs.npz", self._folder / "outputs.npz"
        np.savez(sent, *values.values())
        names = {name: f"arr_{i}" for i, name in enumerate(values)}
        request = {"inputs": str(sent), "outputs": str(received), "names": names}
        self._say(json.dumps(request))
        self.peak_bytes = self._answer("run")["peak"]
        with np.load(received) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(self.outputs)}

    def _say(self, line: str) -> None:
        # A process that died says so when it is asked for its answer.
        with contextlib.suppress(BrokenPipeError):
            print(line, file=self._process.stdin, flush=True)

    def _answer(self, what: str) -> dict[str, Any]:
        stdout = self._process.stdout or ()
        # Whatever else a process prints is not for us.
        line = next((line for line in stdout if line.startswith("{")), "")
        if not line:
            log = (self._folder / "log.txt").read_text("utf-8", "replace").strip()
            raise RuntimeError(
                f"The runtime {end(self._process.wait())} when the file was {what}."
                + (f" Its last words:\n{log[-1000:]}" if log else "")
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


@contextlib.contextmanager
def isolated(path: pathlib.Path) -> Iterator[Isolated]:
    """Loads a file in a process that ends with the block.

    Args:
        path: A `.tflite` or `.onnx` file.

    Yields:
        The runtime.
    """
    # -P: the folder of the program holds an `onnx.py`, which is not the package.
    command = [sys.executable, "-P", runtimes.__file__, str(path)]
    with (
        tempfile.TemporaryDirectory() as folder,
        open(pathlib.Path(folder, "log.txt"), "wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Isolated(process, pathlib.Path(folder))
        finally:
            process.kill()


def end(status: int) -> str:
    """Says how a process ended, after a subject."""
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended with exit status {status}"
