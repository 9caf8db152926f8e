"""Writes down what was measured, where, with what; goes on where it was stopped.

record = Record("mobilenet", provenance)
for sparsity in (0.8, 0.9):
    record.row(lambda: {"accuracy": train(sparsity)}, sparsity=sparsity)
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras

RESULTS = pathlib.Path(__file__).parent / "results"

_PACKAGES = (
    "keras-tickets",
    "numpy",
    "ai-edge-litert",
    "onnx",
    "onnxruntime",
    "tf2onnx",
)


class Record:
    """Rows of results in `benchmarks/results/<name>.json`, one per parameters.

    Args:
        name: Name of the file.
        data: Where the data come from, in words.
        folder: Where the file is.
    """

    def __init__(self, name: str, data: str, folder: pathlib.Path = RESULTS) -> None:
        self.path = folder / f"{name}.json"
        self.content = {**setting(data), "rows": []}
        if self.path.exists():
            self._resume(json.loads(self.path.read_text()))

    def row(self, measure: Callable[[], dict[str, Any]], **parameters: Any) -> dict:
        """Returns what `measure` returned for these parameters, now or earlier."""
        parameters = json.loads(json.dumps(parameters))
        for row in self.content["rows"]:
            if row["parameters"] == parameters:
                print(f"{self.path.stem}: {parameters} is recorded, not run again")
                return row["results"]
        date, start = now(), time.perf_counter()
        results = measure()
        seconds = round(time.perf_counter() - start, 1)
        row = {"parameters": parameters, "date": date, "seconds": seconds}
        self.content["rows"].append({**row, "results": results})
        write(self.path, self.content)
        return results

    def forget(self, unwanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the rows that `unwanted` returns true for: they are measured again."""
        kept = [row for row in self.content["rows"] if not unwanted(row)]
        self.content["rows"] = kept

    def _resume(self, earlier: dict[str, Any]) -> None:
        for key in ("backend", "versions", "machine", "data"):
            if earlier[key] != self.content[key]:
                raise ValueError(
                    f"{self.path} was begun with {key} {earlier[key]}; here it is "
                    f"{self.content[key]}. Rows of one file must be comparable: move "
                    "the file away to start again."
                )
        self.content = earlier


def setting(data: str) -> dict[str, Any]:
    """Returns what makes a result repeatable: command, versions, machine, data."""
    versions = {"python": platform.python_version()}
    for package in ("keras", keras.backend.backend(), *_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "command": _command(),
        "date": now(),
        "backend": keras.backend.backend(),
        "versions": versions,
        "machine": {"cpu": _cpu(), "cores": os.cpu_count()},
        "data": data,
    }


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes JSON: all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(json.dumps(content, indent=2) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def now() -> str:
    """Returns the time, to the second, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _command() -> str:
    """Returns the command line, without the folders of this machine."""
    words = [os.path.basename(w) if os.path.isabs(w) else w for w in sys.orig_argv[1:]]
    return f"KERAS_BACKEND={keras.backend.backend()} python {shlex.join(words)}"


def _cpu() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
