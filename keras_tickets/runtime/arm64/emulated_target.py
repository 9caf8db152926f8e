"""Runs a file in the real ARM64 runtimes, on an emulated processor.

What a phone's processor computes, and which kernels it takes, is what it is on a phone:
the wheels are those for ARM64. How fast it is is not: emulation has a price of its own
for each kind of instruction, so times say which of two files is faster, and no more.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from keras_tickets._util.process import Conversation, converse
from keras_tickets.runtime import fixed_copy, inputs, interpreters, sizes
from keras_tickets.runtime.arm64 import kernel_counter
from keras_tickets.runtime.building import how_to_build
from keras_tickets.runtime.formats import FORMATS
from keras_tickets.runtime.isolated import Isolated, isolated
from keras_tickets.runtime.target import (
    Counted,
    CountingRunner,
    Runs,
    Timing,
    folder_of,
)

# Half-precision arithmetic and dot products, as phones have had since 2018.
_PROCESSOR = "cortex-a76"


class Arm64(CountingRunner):
    """An emulated ARM64 processor: LiteRT's interpreter, ONNX Runtime.

    Args:
        timeout: Seconds that loading a file, and each run, may take.

    Attributes:
        timeout: The same; large models may need more.
    """

    name = "arm64"
    suffixes = (".tflite", ".onnx")

    def __init__(self, timeout: float = 600.0) -> None:
        self.timeout = timeout

    @property
    def folder(self) -> pathlib.Path:
        """Where `keras-tickets setup arm64` puts the emulated machine."""
        return folder_of(self.name)

    def missing(self, suffix: str) -> str | None:
        """Say whether the emulated machine has to be built."""
        parts = (self._emulator, self._interpreter, self._site)
        lacking = next((part for part in parts if not part.exists()), None)
        if lacking is None:
            return None
        return (
            f"It needs an emulated ARM64 machine, and there is no '{lacking}'. Build "
            f"one, on Debian and without root: {how_to_build(self.name)}"
        )

    def open(self, path: pathlib.Path) -> AbstractContextManager[Isolated]:
        """Load a file in the emulated machine."""
        return self._load(path, threads=1)

    def time(self, path: pathlib.Path, runs: Runs) -> Timing:
        """Time single runs, inside the emulated machine."""
        package = FORMATS[path.suffix].package
        try:
            values = inputs.of_file(path, runs.shapes)
            with self._load(path, runs.threads) as runtime:
                seconds = runtime.time(values, runs.total, runs.progress)
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by {package} on emulated ARM64. {error}"
            ) from error
        return Timing(
            tuple(seconds[runs.warmup :]),
            self.version(package),
            self.device(),
            emulated=True,
            assumed=sizes.choose(path, runs.shapes).told,
        )

    def count(
        self, path: pathlib.Path, shapes: Mapping[str, Any] | None = None
    ) -> Counted:
        """Count while LiteRT runs a file in the emulated machine."""
        try:
            with (
                fixed_copy.fixed(path, shapes) as (file, _),
                self._counter(file) as probe,
            ):
                counted: Counted = probe.answer("run")
        except RuntimeError as error:
            raise RuntimeError(
                f"'{path}' cannot be run by LiteRT on emulated ARM64. {error}"
            ) from error
        return counted

    def _counter(self, path: pathlib.Path) -> AbstractContextManager[Conversation]:
        command = [*self.command(), *program(kernel_counter.__file__, path)]
        return converse(command, self.environment(), self.timeout)

    def command(self, *options: str) -> list[str]:
        """Return the command that starts the emulated machine's Python.

        Args:
            options: More options of the emulator.
        """
        return [
            *(str(self._emulator), "-cpu", _PROCESSOR, "-L", str(self._sysroot)),
            *options,
            str(self._interpreter),
        ]

    def environment(self) -> dict[str, str]:
        """Return all environment variables of the emulated machine's Python."""
        # None of this machine's: some name libraries, which are for another processor.
        return {
            "PYTHONHOME": str(self._sysroot / "usr"),
            "PYTHONPATH": str(self._site),
            "OPENBLAS_NUM_THREADS": "1",
            "LC_ALL": "C.UTF-8",
        }

    def version(self, package: str) -> str:
        """Return what the emulated machine has; this machine may have another."""
        found = importlib.metadata.distributions(name=package, path=[str(self._site)])
        return f"{package} {next(iter(found)).version} (aarch64)"

    def device(self) -> str:
        """Return the processor and the emulator, with the version that it reports."""
        said = subprocess.run(
            [self._emulator, "--version"], capture_output=True, text=True, check=True
        )
        return f"emulated {_PROCESSOR}, QEMU {emulator_version(said.stdout)}"

    def _load(
        self, path: pathlib.Path, threads: int
    ) -> AbstractContextManager[Isolated]:
        return isolated(
            path,
            python=self.command(),
            environment=self.environment(),
            threads=threads,
            timeout=self.timeout,
        )

    @property
    def _emulator(self) -> pathlib.Path:
        return self.folder / "bin" / "qemu-aarch64"

    @property
    def _sysroot(self) -> pathlib.Path:
        return self.folder / "sysroot"

    @property
    def _interpreter(self) -> pathlib.Path:
        return self._sysroot / "usr" / "bin" / "python3.11"

    @property
    def _site(self) -> pathlib.Path:
        return self.folder / "site"


def program(name: str, path: pathlib.Path) -> list[str]:
    """Return the arguments of Python that run a program on a file.

    Args:
        name: The program's own file.
        path: A `.tflite` file.
    """
    # -P: of the folders that the programs lie in, nothing is to be imported.
    return ["-P", name, interpreters.__file__, str(path.absolute())]


def emulator_version(text: str) -> str:
    """Read the number out of what `qemu-aarch64 --version` prints.

    Args:
        text: All that it printed.

    Returns:
        The version; `"of unknown version"` if there is none.

    Example:
    >>> emulator_version("qemu-aarch64 version 10.0.2 (Debian 1:10.0.2+ds-2)")
    '10.0.2'
    """
    _, _, rest = text.partition(" version ")
    return (rest.split() or ["of unknown version"])[0]
