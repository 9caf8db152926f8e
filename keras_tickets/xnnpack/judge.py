"""What becomes of each operator of a file: it runs sparse, dense, or breaks."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from keras_tickets.convert.tensor import Array
from keras_tickets.convert.tflite_schema import unpack
from keras_tickets.xnnpack import storage
from keras_tickets.xnnpack.delegate import SPARSE_DENSE, Part, parts
from keras_tickets.xnnpack.graph import Graph, Node, graphs
from keras_tickets.xnnpack.layout import Cluster, Layout, State
from keras_tickets.xnnpack.rules import THRESHOLD, is_pointwise

# XNNPACK takes a kernel for blocks where its blocks are so full.
_FULL = Fraction(9, 10)


class Runs(enum.StrEnum):
    """How an operator runs."""

    SPARSE = "sparse"
    DENSE = "dense"
    BREAKS = "breaks"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What becomes of one operator.

    Args:
        graph: The graph that it is in.
        node: The operator.
        runs: How it runs.
        kernel: The sparse kernel, as `kt.mobile.sparse_path` names it on ARM64.
        reason: Why it does not run sparse.
        fix: What would help.
        cluster: The operators that change their layout together.
    """

    graph: Graph = dataclasses.field(repr=False)
    node: Node
    runs: Runs
    kernel: str = ""
    reason: str = ""
    fix: str = ""
    cluster: Cluster | None = None


def judge(
    graph: Graph, threshold: Fraction = THRESHOLD, encoded: bool | None = None
) -> list[Finding]:
    """Tells what becomes of the operators of a graph.

    Args:
        graph: The graph.
        threshold: The fraction of zeros that XNNPACK asks for.
        encoded: Whether XNNPACK is told of sparse weights; by default, whether the
            file stores some.

    Returns:
        A finding for each operator that XNNPACK or a sparse kernel runs.
    """
    found = {
        f.node.index: f
        for part in parts(graph)
        for f in _of_part(part, threshold, part.hint if encoded is None else encoded)
    }
    found |= {f.node.index: f for f in _stored(graph)}
    return [found[index] for index in sorted(found)]


def _of_part(part: Part, threshold: Fraction, encoded: bool) -> Iterator[Finding]:
    layout = Layout(part, threshold)
    for state in layout.states:
        # Of a dense layer, the product; not the reshape in front of it.
        if state.step.op != "RESHAPE" or state.step.node.op == "RESHAPE":
            yield _of_step(part, layout, state, encoded)


def _of_step(part: Part, layout: Layout, state: State, encoded: bool) -> Finding:
    graph, step = part.graph, state.step
    cluster = layout.clusters.get(state.leader) if state.role else None
    about: dict[str, Any] = {"graph": graph, "node": step.node, "cluster": cluster}
    if not encoded:
        reason = ""
        if is_pointwise(graph, step):
            reason = "no weights beside it are stored without their zeros"
        return Finding(runs=Runs.DENSE, reason=reason, **about)
    if wrong := _what_breaks(layout, state):
        return Finding(runs=Runs.BREAKS, reason=wrong, fix=_CLOSE, **about)
    if not is_pointwise(graph, step):
        return Finding(
            runs=Runs.DENSE,
            reason=state.standing.reason,
            fix=state.standing.fix,
            **about,
        )
    if step.outputs[0] in layout.planar:
        kernel = graph.constant(step.inputs[1])
        block = blocks_of(kernel.values.reshape(kernel.shape[0], -1))
        return Finding(runs=Runs.SPARSE, kernel=f"f32 32x{block}", **about)
    reason, fix = _why_dense(layout, state)
    return Finding(runs=Runs.DENSE, reason=reason, fix=fix, **about)


_CLOSE = (
    "Let the sparse part end in global average pooling (without keepdims) or depth to "
    "space, and keep other operators out of it; kt.mobile.prepare(model) does so where "
    "it can."
)


def _what_breaks(layout: Layout, state: State) -> str:
    """Why an operator fails or computes wrong numbers; empty if it does not."""
    step, graph, planar = state.step, layout.part.graph, layout.planar
    inside = any(i in planar for i in step.inputs)
    through = step.outputs[0] in planar
    if layout.misread(state):
        return "XNNPACK reads its whole numbers as floating-point ones"
    if not inside:
        return ""
    if step.op in ("MEAN", "SUM"):
        return _what_pooling_breaks(layout, state, through)
    if not through and step.op != "DEPTH_TO_SPACE":
        return (
            "it gets its input channel by channel, and what reads its output does not "
            "know that layout"
        )
    if is_pointwise(graph, step) and graph.values[step.inputs[0]].rank != 4:
        return "it gets the channels of an image that is none any more"
    return ""


def _what_pooling_breaks(layout: Layout, state: State, through: bool) -> str:
    """Pooling tells those behind it a wrong shape if it keeps the axes it pools."""
    step, graph = state.step, layout.part.graph
    axes = {int(axis) % 4 for axis in graph.constant(step.inputs[1]).values.ravel()}
    if axes != {1, 2}:
        return "it pools other axes than the rows and columns"
    if not step.node.options.keepDims:
        return ""
    readers = [other for other in layout.states if step.outputs[0] in other.step.inputs]
    well = through and all(
        is_pointwise(graph, other.step) and other.step.outputs[0] in layout.planar
        for other in readers
    )
    if readers and not well:
        return (
            "it keeps the axes that it pools (keepdims), and other than a 1x1 "
            "convolution inside of the sparse part reads it"
        )
    return ""


def _why_dense(layout: Layout, state: State) -> tuple[str, str]:
    """Why a 1x1 convolution or dense layer runs dense in sparse mode."""
    if state.standing.reason:
        return state.standing.reason, state.standing.fix
    cluster = layout.clusters.get(state.leader)
    causes = state.causes | layout.states[state.leader].causes
    if cluster is None or state.spoilt:
        return _blame(layout, causes)
    if not layout.has_exit:
        return (
            "nothing behind it pools the image (GlobalAveragePooling2D) or turns depth "
            "into space",
            _EXIT,
        )
    if not cluster.switched:
        return (
            f"{cluster.zeros:,} of the {cluster.weights:,} weights that run together "
            "are zero; XNNPACK asks for more than two thirds",
            "Prune more of them.",
        )
    return "nothing that reads it is part of the sparse network", _EXIT


_EXIT = (
    "End it in GlobalAveragePooling2D; kt.mobile.prepare(model) turns pooling over the "
    "whole image into that."
)


def _blame(layout: Layout, causes: set[int]) -> tuple[str, str]:
    """Names what keeps a network from running sparse: the first, and how many."""
    graph = layout.part.graph
    named = [
        layout.states[n] for n in sorted(causes) if layout.states[n].standing.reason
    ]
    if not named:
        return (
            "it reads what enters or leaves the part that XNNPACK runs",
            "Begin with a 3x3 convolution of strides 2 on 3 channels.",
        )
    first = named[0]
    others = f", and {len(named) - 1} more" if len(named) > 1 else ""
    value = graph.values[first.step.node.outputs[0]].name
    return (
        f"{first.step.node.op} '{value}' beside it: {first.standing.reason}{others}",
        first.standing.fix,
    )


def blocks_of(kernel: Array) -> int:
    """How many outputs XNNPACK computes together: 4 or 2 if blocks are full, else 1.

    Args:
        kernel: The weights, outputs x inputs.

    Example:
    >>> blocks_of(np.array([[1.0, 0], [2, 0], [0, 0], [0, 3]]))
    1
    >>> blocks_of(np.array([[1.0, 0], [2, 0], [0, 4], [0, 3]]))
    2
    """
    alive = kernel != 0
    fours, pairs = len(alive) // 4 * 4, len(alive) // 2 * 2
    for size, rows in ((4, fours), (2, pairs)):
        grouped = alive[:rows].reshape(-1, size, alive.shape[1])
        slots = size * int(grouped.any(1).sum())
        if int(grouped.sum()) >= _FULL * slots:
            return size
    return 1


def _stored(graph: Graph) -> Iterator[Finding]:
    """What becomes of operators whose weights are stored without zeros, by type."""
    for node in graph.nodes:
        if len(node.inputs) < 2 or not graph.is_sparse(node.inputs[1]):
            continue
        kernel = graph.constant(node.inputs[1])
        in_blocks = node.op == "FULLY_CONNECTED" and not graph.is_unpacked(
            node.inputs[1]
        )
        whole = graph.values[node.inputs[0]].dtype == "INT8"
        reason = storage.refusal(node.op, kernel.dtype, whole, in_blocks)
        if reason:
            yield Finding(graph, node, Runs.BREAKS, reason=reason, fix=storage.FIX)
        elif in_blocks and node.version != SPARSE_DENSE:
            yield Finding(
                graph,
                node,
                Runs.BREAKS,
                reason="XNNPACK reads its stored values as dense weights",
                fix="Write the file with kt.export.",
            )
        elif in_blocks:
            yield Finding(graph, node, Runs.SPARSE, kernel=_dense_kernel(kernel))


def _dense_kernel(kernel: Any) -> str:
    kind = {"float32": "f32", "int8": "int8"}[kernel.dtype]
    return f"{kind} {kernel.encoding.removeprefix('sparse ')}"


def why_dense(model: Any) -> str:
    """Tells why a file must keep the zeros of what `DENSIFY` would unpack.

    Whatever the number of zeros: a network that breaks above XNNPACK's threshold is
    told from one that does not by the operators, and not by a weight more or less.

    Args:
        model: An unpacked `.tflite` file, with sparse weights.

    Returns:
        The reason; empty if there is none.
    """
    for graph in graphs(model):
        for found in judge(graph, threshold=Fraction(0)):
            if found.runs is Runs.BREAKS:
                value = graph.values[found.node.outputs[0]].name
                return (
                    "XNNPACK on ARM and in wasm would fail or compute wrong numbers at "
                    f"{found.node.op} '{value}': {found.reason}"
                )
    return ""


def judge_file(content: bytes) -> list[Finding]:
    """Tells what becomes of the operators of a file.

    Args:
        content: The bytes of a `.tflite` file.

    Returns:
        The findings of all its graphs, as `judge` returns them.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
    """
    return [found for graph in graphs(unpack(content)) for found in judge(graph)]
