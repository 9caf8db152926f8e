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
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_tickets.convert import runtimes
from keras_tickets.convert.runtimes import Arrays, Runtime


class Isolated(Runtime):
    """A file that is loaded in another process.

    Args:
        process: The process, just started.
        folder: Where arrays are exchanged.
        timeout: Seconds that one answer may take; None waits for ever.

    Attributes:
        peak_bytes: The most memory that loading and running took, the runtime's own
            code apart; 0 where the system does not tell.

    Raises:
        RuntimeError: If the runtime refuses the file, dies of it, or is silent for
            too long.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        folder: pathlib.Path,
        timeout: float | None = None,
    ) -> None:
        self._process, self._folder, self._timeout = process, folder, timeout
        names = self._answer("loaded")
        self.inputs, self.outputs = names["inputs"], names["outputs"]
        self.peak_bytes = 0

    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""
        received = self._folder / "outputs.npz"
        self._ask(values, outputs=str(received))
        self.peak_bytes = self._answer("run")["peak"]
        with np.load(received) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(self.outputs)}

    def time(
        self, values: Arrays, runs: int, progress: Callable[[int], None]
    ) -> list[float]:
        """Runs the file several times on the same inputs.

        Args:
            values: The inputs.
            runs: How many times.
            progress: Called with the number of runs done so far.

        Returns:
            The seconds of each run, in order; the inputs' way there is not counted.
        """
        self._ask(values, runs=runs)
        seconds = []
        for index in range(runs):
            seconds.append(self._answer("run")["seconds"])
            progress(index + 1)
        return seconds

    def _ask(self, values: Arrays, **request: Any) -> None:
        sent = self._folder / "inputs.npz"
        np.savez(sent, *values.values())
        names = {name: f"arr_{i}" for i, name in enumerate(values)}
        self._say(json.dumps({"inputs": str(sent), "names": names, **request}))

    def _say(self, line: str) -> None:
        # A process that died says so when it is asked for its answer.
        with contextlib.suppress(BrokenPipeError):
            print(line, file=self._process.stdin, flush=True)

    def _answer(self, what: str) -> dict[str, Any]:
        line, late = self._line()
        if late:
            raise RuntimeError(
                f"The runtime was ended: it gave no answer for {self._timeout:g} "
                f"seconds when the file was {what}."
            )
        if not line:
            raise RuntimeError(
                f"The runtime {end(self._process.wait())} when the file was {what}."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _line(self) -> tuple[str, bool]:
        """The next line, empty if the process ended; and whether that was too late."""
        if self._timeout is None:
            return self._read(), False
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        watchdog = threading.Timer(self._timeout, stop)
        watchdog.start()
        try:
            return self._read(), late.is_set()
        finally:
            watchdog.cancel()

    def _read(self) -> str:
        return self._process.stdout.readline() if self._process.stdout else ""


@contextlib.contextmanager
def isolated(
    path: pathlib.Path,
    *,
    python: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
    threads: int = 0,
    timeout: float | None = None,
) -> Iterator[Isolated]:
    """Loads a file in a process that ends with the block.

    Args:
        path: A `.tflite` or `.onnx` file.
        python: The command of a Python that has NumPy and the runtime.
        environment: Its environment variables; None hands on this process' own.
        threads: Threads that the runtime may use; 0 lets it choose.
        timeout: Seconds that loading and each run may take; None waits for ever.

    Yields:
        The runtime.
    """
    # -P: the folder of the program holds an `onnx.py`, which is not the package.
    command = [*python, "-P", runtimes.__file__, str(path), str(threads)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        ) as process,
    ):
        try:
            yield Isolated(process, pathlib.Path(folder), timeout)
        finally:
            process.kill()


def end(status: int) -> str:
    """Says how a process ended, after a subject."""
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended with exit status {status}"
