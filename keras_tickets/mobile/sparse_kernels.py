"""`sparse_path`: which nodes of a file ran in a sparse kernel, by counting."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from keras_tickets import runtime
from keras_tickets._util.files import check_source
from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import facts
from keras_tickets.runtime import sizes
from keras_tickets.runtime.formats import SUFFIXES
from keras_tickets.runtime.target import Counted, CountingRunner

_TITLES = {"arm64": "on emulated ARM64", "wasm": "in LiteRT.js"}


@dataclasses.dataclass(frozen=True)
class SparseKernel:
    """One sparse kernel, and what ran in it.

    Args:
        name: The type it computes in and its size. Of a kernel for 1x1 convolutions
            these are the pixels and outputs that it computes together (`f32 32x1`); of
            one for dense layers, the outputs and inputs of a block (`f32 1x4`).
        outputs: For each node that ran in it, in the order of the first call, how many
            outputs (channels, units) it has. Nodes that share their weights are one.
        calls: How often the kernel ran; for dense layers on `"wasm"`, how often the
            nodes did.
    """

    name: str
    outputs: tuple[int, ...]
    calls: int

    @property
    def nodes(self) -> int:
        """How many nodes ran in it."""
        return len(self.outputs)


@dataclasses.dataclass(frozen=True, repr=False)
class SparsePath(Shown):
    """Which nodes of a file ran in which sparse kernel. Prints as a table.

    Args:
        path: The file.
        on: Where it ran.
        convolutions: XNNPACK's sparse kernels, in which 1x1 convolutions run.
        dense: TFLite's sparse kernels, in which dense layers run.
        assumed: The sizes of inputs that the file leaves open, and who chose them.
    """

    path: str
    on: str
    convolutions: tuple[SparseKernel, ...]
    dense: tuple[SparseKernel, ...]
    assumed: str = ""

    @property
    def nodes(self) -> int:
        """How many nodes ran in a sparse kernel."""
        return sum(kernel.nodes for kernel in (*self.convolutions, *self.dense))

    def __str__(self) -> str:
        """Return the table."""
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
        rows += [("sizes", self.assumed)] if self.assumed else []
        return facts(f"Sparse kernels {_TITLES[self.on]}", rows)


def sparse_path(
    path: str | os.PathLike[str],
    on: str = "arm64",
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> SparsePath:
    """Run a file once and count the nodes that run in sparse kernels.

    Calls are counted while it runs, so this is what ran, and not what the file looks
    like. Of a dense layer on `"wasm"` the call of its operator is counted, with weights
    in memory that are the stored blocks and no more. It is the path of one thread, of
    LiteRT 2.3 and LiteRT.js 2.5.3.

    Args:
        path: A `.tflite` file.
        on: Where to run it: `"arm64"` is LiteRT on an emulated ARM64 processor,
            `"wasm"` LiteRT.js in Node. This machine's LiteRT has no probe, and on x86
            no sparse kernels for convolutions.
        input_shapes: The shapes of its inputs by their names, for a file that leaves
            sizes open; see `benchmark`.

    Returns:
        The sparse kernels, and the nodes that ran in each.

    Raises:
        ValueError: If the target is unknown or has no probe, the suffix is another
            one, or the file has no such input shapes.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        RuntimeError: If the target was not built, or cannot run the file.

    Example:

    ```python
    kt.export(ticket, "model.tflite")
    print(kt.mobile.sparse_path("model.tflite"))
    print(kt.mobile.sparse_path("model.tflite", on="wasm"))
    ```
    """
    runner = _counting(on)
    file = check_source(path, {".tflite": SUFFIXES[".tflite"]})
    runner.check(file)
    found = parse(str(path), on, runner.count(file, input_shapes))
    return dataclasses.replace(found, assumed=sizes.choose(file, input_shapes).told)


def _counting(on: str) -> CountingRunner:
    """Return the runner of a target that counts."""
    runner = runtime.get(on)
    if isinstance(runner, CountingRunner):
        return runner
    raise ValueError(
        "Nodes in sparse kernels are counted on "
        f"{' and '.join(map(repr, sorted(_TITLES)))} only. Received: on={on!r}."
    )


def parse(path: str, on: str, counted: Counted) -> SparsePath:
    """Read what a runner counted.

    Args:
        path: The file it ran.
        on: The runner's name.
        counted: What it counted.

    Returns:
        The kernels.

    Example:
    >>> ran = {"kernel": "f32 1x4", "outputs": [64, 10], "calls": 2}
    >>> parse("m.tflite", "wasm", {"convolution": [], "dense": [ran]}).nodes
    2
    """
    convolutions, dense = (
        tuple(
            SparseKernel(entry["kernel"], tuple(entry["outputs"]), entry["calls"])
            for entry in counted[kind]
        )
        for kind in ("convolution", "dense")
    )
    return SparsePath(path, on, convolutions, dense)
