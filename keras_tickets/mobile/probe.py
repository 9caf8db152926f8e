"""`sparse_path`: which nodes of a file ran in a sparse kernel on ARM64, by counting."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from keras_tickets.convert.conversation import converse
from keras_tickets.convert.formats import SUFFIXES
from keras_tickets.files import check_source
from keras_tickets.mobile.runners import arm64_probe
from keras_tickets.mobile.runners.arm64 import Arm64
from keras_tickets.tables import facts


@dataclasses.dataclass(frozen=True)
class SparseKernel:
    """One sparse kernel, and what ran in it.

    Args:
        name: The type it computes in and its size. Of a kernel for 1x1 convolutions
            these are the pixels and outputs that it computes together (`f32 32x1`); of
            one for dense layers, the outputs and inputs of a block (`f32 1x4`).
        outputs: For each node that ran in it, in the order of the first call, how many
            outputs (channels, units) it has. Nodes that share their weights are one.
        calls: How often the kernel ran.
    """

    name: str
    outputs: tuple[int, ...]
    calls: int

    @property
    def nodes(self) -> int:
        """How many nodes ran in it."""
        return len(self.outputs)


@dataclasses.dataclass(frozen=True)
class SparsePath:
    """Which nodes of a file ran in which sparse kernel. Prints as a table.

    Args:
        path: The file.
        convolutions: XNNPACK's sparse kernels, in which 1x1 convolutions run.
        dense: TFLite's sparse kernels, in which dense layers run.
    """

    path: str
    convolutions: tuple[SparseKernel, ...]
    dense: tuple[SparseKernel, ...]

    @property
    def nodes(self) -> int:
        """How many nodes ran in a sparse kernel."""
        return sum(kernel.nodes for kernel in (*self.convolutions, *self.dense))

    def __str__(self) -> str:
        """Returns the table."""
        rows = [("file", self.path), ("nodes that ran sparse", str(self.nodes))]
        for what, kernels in (
            ("1x1 convolutions", self.convolutions),
            ("dense layers", self.dense),
        ):
            rows += [
                (f"{what}, {kernel.name}", f"{kernel.nodes}, of outputs {sizes}")
                for kernel in kernels
                if (sizes := ", ".join(map(str, kernel.outputs)))
            ]
        return facts("Sparse kernels on emulated ARM64", rows)


def sparse_path(path: str | os.PathLike[str]) -> SparsePath:
    """Runs a file once on emulated ARM64 and counts the nodes in sparse kernels.

    Sparse kernels are replaced by counters that call them. So this is what ran, and
    not what the file looks like. It is the single-threaded path of LiteRT 2.3.

    Args:
        path: A `.tflite` file.

    Returns:
        The sparse kernels, and the nodes that ran in each.

    Raises:
        ValueError: If the suffix is another one.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        RuntimeError: If the emulated machine was not built, or cannot run the file.

    Example:

    ```python
    kt.export(ticket, "model.tflite")
    print(kt.mobile.sparse_path("model.tflite"))
    ```
    """
    file = check_source(path, {".tflite": SUFFIXES[".tflite"]})
    runner = Arm64()
    runner.check(file)
    return parse(str(path), _count(runner, file))


def _count(runner: Arm64, file: pathlib.Path) -> dict[str, Any]:
    """What the probe answers."""
    command = [*runner.command(), "-P", arm64_probe.__file__, str(file.absolute())]
    try:
        with converse(command, runner.environment(), runner.timeout) as probe:
            return probe.answer("run")
    except RuntimeError as error:
        raise RuntimeError(
            f"'{file}' cannot be run by LiteRT on emulated ARM64. {error}"
        ) from error


def parse(path: str, counted: dict[str, Any]) -> SparsePath:
    """Reads what the probe counted.

    Args:
        path: The file it ran.
        counted: Its answer.

    Returns:
        The kernels.

    Example:
    >>> ran = {"kernel": "f32 1x4", "outputs": [64, 10], "calls": 2}
    >>> parse("m.tflite", {"convolution": [], "dense": [ran]}).nodes
    2
    """
    convolutions, dense = (
        tuple(
            SparseKernel(entry["kernel"], tuple(entry["outputs"]), entry["calls"])
            for entry in counted[kind]
        )
        for kind in ("convolution", "dense")
    )
    return SparsePath(path, convolutions, dense)
