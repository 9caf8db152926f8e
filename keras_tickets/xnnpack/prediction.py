"""What becomes of each operator of a file: it runs sparse, dense, or breaks."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from keras_tickets._util.file_tensor import Array
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.graph import Graph, Node
from keras_tickets.xnnpack import support
from keras_tickets.xnnpack.layout import Cluster, Layout, State
from keras_tickets.xnnpack.partition import SPARSE_DENSE, Partition, Step, partitions
from keras_tickets.xnnpack.predicates import is_pointwise
from keras_tickets.xnnpack.rules import THRESHOLD

# XNNPACK takes a kernel for blocks where its blocks are so full.
_FULL = Fraction(9, 10)


class Execution(enum.StrEnum):
    """How an operator runs."""

    SPARSE = "sparse"
    DENSE = "dense"
    BREAKS = "breaks"


@dataclasses.dataclass(frozen=True)
class OperatorReport:
    """What becomes of one operator.

    Args:
        graph: The graph that it is in.
        node: The operator.
        runs: How it runs.
        kernel: The sparse kernel, as `kt.mobile.sparse_path` names it on ARM64.
        reason: Why it does not run sparse.
        blocking_op: The operator that the reason is about, if another one.
        fix: What would help.
        cluster: The operators that change their layout together.
    """

    graph: Graph = dataclasses.field(repr=False)
    node: Node
    runs: Execution
    kernel: str = ""
    reason: str = ""
    blocking_op: Node | None = None
    fix: str = ""
    cluster: Cluster | None = None


def predict(
    graph: Graph, threshold: Fraction = THRESHOLD, assume_sparse: bool = False
) -> list[OperatorReport]:
    """Predict what becomes of the operators of a graph.

    Args:
        graph: The graph.
        threshold: The fraction of zeros that XNNPACK asks for.
        assume_sparse: Whether XNNPACK is told of sparse weights even where the file
            stores none.

    Returns:
        A report on each operator that XNNPACK or a sparse kernel runs.
    """
    found = {
        f.node.index: f
        for partition in partitions(graph)
        for f in _of_partition(partition, threshold, partition.hint or assume_sparse)
    }
    found |= {f.node.index: f for f in _stored(graph)}
    return [found[index] for index in sorted(found)]


def _of_partition(
    partition: Partition, threshold: Fraction, sparse_mode: bool
) -> Iterator[OperatorReport]:
    layout = Layout(partition, threshold)
    for state in layout.states:
        # Of a dense layer, the product; not the reshape in front of it.
        if state.step.op != "RESHAPE" or state.step.node.op == "RESHAPE":
            yield _of_step(partition, layout, state, sparse_mode)


def _of_step(
    partition: Partition, layout: Layout, state: State, sparse_mode: bool
) -> OperatorReport:
    graph, step = partition.graph, state.step
    cluster = layout.clusters.get(state.leader) if state.role else None
    found = OperatorReport(graph, step.node, Execution.DENSE, cluster=cluster)
    if sparse_mode and (wrong := _what_breaks(layout, state)):
        return dataclasses.replace(
            found, runs=Execution.BREAKS, reason=wrong, fix=_CLOSE
        )
    if not is_pointwise(graph, step):
        own = state.eligibility
        return dataclasses.replace(found, reason=own.reason, fix=own.fix)
    kernel = graph.constant(step.inputs[1])
    if sparse_mode and step.outputs[0] in layout.nchw:
        block = blocks_of(kernel.values.reshape(kernel.shape[0], -1))
        name = f"f32 32x{block}"
        return dataclasses.replace(found, runs=Execution.SPARSE, kernel=name)
    if step.op == "FULLY_CONNECTED":
        reason, fix = support.why_no_blocks(
            kernel, _computes_in_integers(graph, step.node)
        )
        return dataclasses.replace(found, reason=reason, fix=fix)
    if not sparse_mode:
        reason = "no weights beside it are stored without their zeros"
        return dataclasses.replace(found, reason=reason)
    return _why_dense(layout, state, found)


_CLOSE = (
    "Let the sparse part end in global average pooling (without keepdims) or depth to "
    "space, and keep other operators out of it; kt.mobile.prepare(model) does so where "
    "it can."
)


def _what_breaks(layout: Layout, state: State) -> str:
    """Return why an operator fails or computes wrong numbers; empty if it does not."""
    step, graph, nchw = state.step, layout.partition.graph, layout.nchw
    inside = any(i in nchw for i in step.inputs)
    through = step.outputs[0] in nchw
    if layout.misread(state):
        return "XNNPACK reads its integers as floating-point numbers"
    if not inside:
        return ""
    if step.op in ("MEAN", "SUM"):
        return _what_pooling_breaks(layout, state, through)
    if not through and step.op != "DEPTH_TO_SPACE":
        return f"its input is in NCHW (channel by channel), but {_reader(layout, step)}"
    if is_pointwise(graph, step) and graph.values[step.inputs[0]].rank != 4:
        return "its input is no longer a rank-4 image"
    return ""


def _reader(layout: Layout, step: Step) -> str:
    """Return who reads the output of a step, and how."""
    ops = [o.step.op for o in layout.states if step.outputs[0] in o.step.inputs]
    if not ops:
        return "its output leaves the network in NHWC (pixel by pixel)"
    readers = " and ".join(sorted(set(ops)))
    return f"{readers} reads its output as NHWC (pixel by pixel)"


def _what_pooling_breaks(layout: Layout, state: State, through: bool) -> str:
    """Return what is wrong with pooling, whose output may have a wrong shape."""
    step, graph = state.step, layout.partition.graph
    axes = {int(axis) % 4 for axis in graph.constant(step.inputs[1]).values.ravel()}
    if axes != {1, 2}:
        return "it pools other axes than the rows and columns"
    if not step.node.options.keepDims:
        return ""
    readers = [o.step for o in layout.states if step.outputs[0] in o.step.inputs]
    well = through and all(
        is_pointwise(graph, reader) and reader.outputs[0] in layout.nchw
        for reader in readers
    )
    if well:
        return ""
    return (
        "it keeps the axes that it pools (keepdims), so that its output has a wrong "
        "shape for all but 1x1 convolutions inside of the sparse part"
    )


def _why_dense(layout: Layout, state: State, found: OperatorReport) -> OperatorReport:
    """Return why a 1x1 convolution runs dense in sparse mode."""
    if own := state.eligibility.reason:
        return dataclasses.replace(found, reason=own, fix=state.eligibility.fix)
    if not layout.has_exit:
        reason = "nothing behind it pools the image or turns depth into space"
        return dataclasses.replace(found, reason=reason, fix=_EXIT)
    cluster = layout.clusters.get(state.leader)
    if cluster is None or state.disqualified:
        return _blocked(layout, state, found)
    if cluster.switched:
        reason = "what reads it is not part of a sparse network"
        return dataclasses.replace(found, reason=reason, fix=_EXIT)
    return dataclasses.replace(
        found,
        reason=f"{cluster.zeros:,} of the {cluster.weights:,} weights that run "
        "together are zero; XNNPACK asks for more than two thirds",
        fix="Prune more of the 1x1 convolutions beside it.",
    )


_EXIT = (
    "End it in GlobalAveragePooling2D; kt.mobile.prepare(model) turns pooling over the "
    "whole image into that."
)


def _blocked(layout: Layout, state: State, found: OperatorReport) -> OperatorReport:
    """Name the operator that keeps a network from running sparse, and count others."""
    causes = state.causes | layout.states[state.leader].causes
    states = [layout.states[number] for number in sorted(causes)]
    named = [other for other in states if other.eligibility.reason]
    if not named:
        return dataclasses.replace(
            found,
            reason="it reads what enters the partition that XNNPACK runs",
            fix="Begin with a 3x3 convolution of strides 2 on 3 channels.",
        )
    first, others = named[0], len(named) - 1
    return dataclasses.replace(
        found,
        reason=first.eligibility.reason + (f" (and {others} more)" if others else ""),
        blocking_op=first.step.node,
        fix=first.eligibility.fix,
    )


def blocks_of(kernel: Array) -> int:
    """Return how many outputs XNNPACK computes together: 4 or 2 in full blocks, else 1.

    Args:
        kernel: The weights, outputs x inputs.

    Example:
    >>> import numpy as np
    >>> blocks_of(np.array([[1.0, 0], [2, 0], [0, 0], [0, 3]]))
    1
    >>> blocks_of(np.array([[1.0, 0], [2, 0], [0, 4], [0, 3]]))
    2
    """
    kept = kernel != 0
    fours, pairs = len(kept) // 4 * 4, len(kept) // 2 * 2
    for size, rows in ((4, fours), (2, pairs)):
        grouped = kept[:rows].reshape(-1, size, kept.shape[1])
        slots = size * int(grouped.any(1).sum())
        if int(grouped.sum()) >= _FULL * slots:
            return size
    return 1


def _stored(graph: Graph) -> Iterator[OperatorReport]:
    """Report on operators whose weights are stored without zeros, by type."""
    for node in graph.nodes:
        if len(node.inputs) < 2 or not graph.is_sparse(node.inputs[1]):
            continue
        kernel = graph.constant(node.inputs[1])
        in_blocks = node.op == "FULLY_CONNECTED" and not graph.is_unpacked(
            node.inputs[1]
        )
        integers = _computes_in_integers(graph, node)
        reason = support.refusal(node.op, kernel.dtype, integers, in_blocks)
        if reason:
            yield OperatorReport(
                graph, node, Execution.BREAKS, reason=reason, fix=support.FIX
            )
        elif in_blocks and node.version != SPARSE_DENSE:
            reason = "XNNPACK reads its stored values as dense weights"
            yield OperatorReport(
                graph, node, Execution.BREAKS, reason=reason, fix=support.FIX
            )
        elif in_blocks:
            yield OperatorReport(
                graph, node, Execution.SPARSE, kernel=_dense_kernel(kernel)
            )


def _computes_in_integers(graph: Graph, node: Node) -> bool:
    """Return whether an operator computes in integers (quantized)."""
    return graph.values[node.inputs[0]].dtype == "INT8"


def _dense_kernel(kernel: Any) -> str:
    kind = {"float32": "f32", "int8": "int8"}[kernel.dtype]
    return f"{kind} {kernel.encoding.removeprefix('sparse ')}"


def what_breaks(graph: Graph, assume_sparse: bool = True) -> OperatorReport | None:
    """Find what would fail or be wrong if weights were stored without zeros.

    Whatever the number of zeros: a network that breaks above XNNPACK's threshold is
    told from one that does not by its operators, and not by a weight more or less.

    Args:
        graph: The graph.
        assume_sparse: As in `predict`.

    Returns:
        The first such operator, if there is one.
    """
    reports = predict(graph, Fraction(0), assume_sparse)
    return next((found for found in reports if found.runs is Execution.BREAKS), None)


def why_dense(file: TfliteFile) -> str:
    """Return why a file must keep the zeros of what `DENSIFY` would unpack.

    Args:
        file: A `.tflite` file with sparse weights.

    Returns:
        The reason; empty if there is none.
    """
    for graph in file.graphs():
        if found := what_breaks(graph, assume_sparse=False):
            return (
                "XNNPACK on ARM and in wasm would fail or compute wrong numbers at "
                f"{found.node.op} '{graph.scope(found.node)}': {found.reason}"
            )
    return ""
