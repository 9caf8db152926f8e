"""Runs a file on this machine's CPU, in the runtime that the suffix names."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
from contextlib import AbstractContextManager

from keras_tickets.runtime import inputs, sizes
from keras_tickets.runtime.formats import FORMATS
from keras_tickets.runtime.interpreters import Runtime
from keras_tickets.runtime.isolated import isolated
from keras_tickets.runtime.target import Runner, Runs, Timing


class Host(Runner):
    """This machine's CPU: LiteRT's interpreter, ONNX Runtime."""

    name = "host"
    suffixes = tuple(FORMATS)

    def missing(self, suffix: str) -> str | None:
        """Say whether the runtime's package is not installed."""
        kind = FORMATS[suffix]
        if importlib.util.find_spec(kind.module):
            return None
        return (
            f"It needs `{kind.package}`. Install it with: "
            'pip install "keras-tickets[export]"'
        )

    def open(self, path: pathlib.Path) -> AbstractContextManager[Runtime]:
        """Load a file in a process of its own, which it may crash."""
        return isolated(path)

    def time(self, path: pathlib.Path, runs: Runs) -> Timing:
        """Time single runs, inside a process of the file's own."""
        package = FORMATS[path.suffix].package
        try:
            values = inputs.of_file(path, runs.shapes)
            with isolated(path, threads=runs.threads) as runtime:
                seconds = runtime.time(values, runs.total, runs.progress)
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by {package}. {error}"
            ) from error
        version = importlib.metadata.version(package)
        return Timing(
            tuple(seconds[runs.warmup :]),
            f"{package} {version}",
            device(),
            assumed=sizes.choose(path, runs.shapes).told,
        )


def device() -> str:
    """Return the name of this machine's CPU, and the number of its usable cores."""
    name = platform.processor() or platform.machine()
    cpu = pathlib.Path("/proc/cpuinfo")
    if cpu.exists():
        lines = cpu.read_text().splitlines()
        models = (line for line in lines if line.startswith("model name"))
        name = next(models, f":{name}").split(":", 1)[1].strip()
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )
    return f"{name}, {platform.machine()}, {cores} cores"
