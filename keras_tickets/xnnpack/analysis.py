"""From a `.tflite` file in memory to its `Diagnosis`; without Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_tickets._util.file_tensor import FileTensor
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.graph import Graph, Node
from keras_tickets.xnnpack import speed
from keras_tickets.xnnpack.diagnosis import ClusterZeros, Diagnosis, Layer
from keras_tickets.xnnpack.layout import Cluster
from keras_tickets.xnnpack.partition import partitions
from keras_tickets.xnnpack.prediction import (
    Execution,
    OperatorReport,
    predict,
    what_breaks,
)
from keras_tickets.xnnpack.rules import REVISION

TARGET = "xnnpack"

Naming = Callable[[str, FileTensor | None], str]

# What tfmot calls its wrappers, until they are stripped.
_UNSTRIPPED = "prune_low_magnitude_"

# Operators that get a row: those with weights. Others only if they break.
_WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "TRANSPOSE_CONV",
)


def analyze(file: TfliteFile, subject: str, naming: Naming | None = None) -> Diagnosis:
    """Predict what of a file runs sparse.

    Args:
        file: A `.tflite` file of any origin.
        subject: What the report calls it.
        naming: Given the name of an operator in TensorFlow, and its weights if it has
            some, what the report calls it.

    Returns:
        The report.
    """
    layers: list[Layer] = []
    numbers: dict[int, int] = {}
    clusters: list[ClusterZeros] = []
    for graph in file.graphs():
        for found in _reports(graph):
            number = _number(found.cluster, numbers, clusters)
            if found.node.op in _WEIGHTED or found.runs is Execution.BREAKS:
                layers.append(_layer(graph, found, number, naming))
    return Diagnosis(
        subject=subject,
        target=TARGET,
        revision=REVISION,
        precision=_precision(layers),
        layers=tuple(layers),
        clusters=tuple(clusters),
        foreign=tuple(sorted(file.foreign())),
        origin=_origin(file),
    )


def _origin(file: TfliteFile) -> str:
    """Say where a file comes from that was converted too early."""
    names = (value.name for graph in file.graphs() for value in graph.values)
    if not any(_UNSTRIPPED in name for name in names):
        return ""
    return (
        "tfmot's pruning, not stripped: it still holds the wrappers "
        f"'{_UNSTRIPPED}...', with their masks and thresholds. Call "
        "tfmot.sparsity.keras.strip_pruning(model) before you convert it, and diagnose "
        "the new file"
    )


def _reports(graph: Graph) -> list[OperatorReport]:
    """Report on each operator; those that XNNPACK does not run are dense."""
    known = {found.node.index: found for found in predict(graph)}
    hinted = {
        step.node.index
        for partition in partitions(graph)
        if partition.hint
        for step in partition.steps
    }
    if_sparse = {
        found.node.index: found for found in predict(graph, assume_sparse=True)
    }
    broken = what_breaks(graph)
    for index, found in known.items():
        if index not in hinted and found.runs is Execution.DENSE and found.reason:
            known[index] = _explained(found, if_sparse[index], broken)
    rest = [
        OperatorReport(graph, node, Execution.DENSE, reason="XNNPACK does not run it")
        for node in graph.nodes
        if node.index not in known and node.op in _WEIGHTED
    ]
    return sorted([*known.values(), *rest], key=lambda found: found.node.index)


def _explained(
    found: OperatorReport, if_sparse: OperatorReport, broken: OperatorReport | None
) -> OperatorReport:
    """Explain why an operator runs dense that DENSIFY unpacks nothing for."""
    if if_sparse.runs is Execution.DENSE:
        return if_sparse
    if broken is not None:
        blocking_op = None if broken.node is found.node else broken.node
        reason = f"stored with its zeros, or the network would break: {broken.reason}"
        return dataclasses.replace(
            found, reason=reason, blocking_op=blocking_op, fix=broken.fix
        )
    return dataclasses.replace(
        found,
        reason="it is stored with its zeros, but could run sparse",
        fix='Export it with kt.export(..., sparse="auto").',
        cluster=if_sparse.cluster,
    )


def _number(
    cluster: Cluster | None, numbers: dict[int, int], clusters: list[ClusterZeros]
) -> int:
    """Return the number of a cluster of 1x1 convolutions; 0 of anything else."""
    if cluster is None or not cluster.weights:
        return 0
    if id(cluster) not in numbers:
        numbers[id(cluster)] = len(clusters) + 1
        clusters.append(ClusterZeros(len(clusters) + 1, cluster.weights, cluster.zeros))
    return numbers[id(cluster)]


def _layer(
    graph: Graph, found: OperatorReport, cluster: int, naming: Naming | None
) -> Layer:
    node = found.node
    kernel = _kernel(graph, node)
    reason = found.reason
    if found.blocking_op is not None:
        blocking_op = _name(graph, found.blocking_op, naming)
        reason = f"{found.blocking_op.op} {blocking_op} beside it: {reason}"
    return Layer(
        name=_name(graph, node, naming),
        op=node.op,
        shape=kernel.shape if kernel else (),
        dtype=kernel.dtype if kernel else "",
        encoding=kernel.encoding if kernel else "",
        weights=kernel.values.size if kernel else 0,
        zeros=kernel.zeros if kernel else 0,
        multiplications=speed.multiplications(graph, node),
        runs=str(found.runs),
        kernel=found.kernel,
        reason=reason,
        fix=found.fix,
        cluster=cluster,
    )


def _name(graph: Graph, node: Node, naming: Naming | None) -> str:
    scope = graph.scope(node)
    if naming:
        return naming(scope, _kernel(graph, node))
    return scope.rpartition("/")[0] or scope


def _kernel(graph: Graph, node: Node) -> FileTensor | None:
    has = node.op in _WEIGHTED and len(node.inputs) > 1
    return (
        graph.constant(node.inputs[1])
        if has and graph.is_constant(node.inputs[1])
        else None
    )


def _precision(layers: list[Layer]) -> str:
    kinds = {layer.dtype for layer in layers}
    return next((kind for kind in ("int8", "float16") if kind in kinds), "float32")
