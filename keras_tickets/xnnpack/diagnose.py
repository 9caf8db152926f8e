"""From a `.tflite` file to its `Diagnosis`; without Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_tickets.convert.tensor import FileTensor
from keras_tickets.convert.tflite_schema import unpack
from keras_tickets.xnnpack import speed
from keras_tickets.xnnpack.delegate import parts
from keras_tickets.xnnpack.diagnosis import ClusterZeros, Diagnosis, Layer
from keras_tickets.xnnpack.graph import Graph, Node, graphs
from keras_tickets.xnnpack.judge import Finding, Runs, judge
from keras_tickets.xnnpack.layout import Cluster
from keras_tickets.xnnpack.rules import REVISION

TARGETS = ("xnnpack",)

# Operators that get a row: those with weights. Others only if they break.
_WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "TRANSPOSE_CONV",
)


def check_target(target: str) -> None:
    """Raises if there is no table of rules for a target.

    Raises:
        ValueError: If there is none.
    """
    if target not in TARGETS:
        raise ValueError(
            f"target names whose sparse kernels are meant: one of {list(TARGETS)} "
            "(LiteRT on ARM64 phones, and in browsers). Received: "
            f"target={target!r}."
        )


def diagnose_content(
    content: bytes, subject: str, naming: Callable[[str], str] | None = None
) -> Diagnosis:
    """Tells what of a file runs sparse.

    Args:
        content: The bytes of a `.tflite` file, of any origin.
        subject: What the report calls it.
        naming: Given the name of an operator in TensorFlow, the layer it comes from.

    Returns:
        The report.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
    """
    layers: list[Layer] = []
    numbers: dict[int, int] = {}
    clusters: list[ClusterZeros] = []
    found_graphs = graphs(unpack(content))
    for graph in found_graphs:
        for found in _findings(graph):
            number = _number(found.cluster, numbers, clusters)
            if found.node.op in _WEIGHTED or found.runs is Runs.BREAKS:
                layers.append(_layer(graph, found, number, naming))
    foreign = {
        node.op.removeprefix("custom:")
        for graph in found_graphs
        for node in graph.nodes
        if node.op.startswith("custom:")
    }
    return Diagnosis(
        subject=subject,
        target=TARGETS[0],
        revision=REVISION,
        precision=_precision(layers),
        layers=tuple(layers),
        clusters=tuple(clusters),
        foreign=tuple(sorted(foreign)),
    )


def _findings(graph: Graph) -> list[Finding]:
    """What becomes of each operator, and of those in no part: they run dense."""
    known = {found.node.index: found for found in judge(graph)}
    hinted = {
        step.node.index for part in parts(graph) if part.hint for step in part.steps
    }
    if_sparse = {found.node.index: found for found in judge(graph, encoded=True)}
    for index, found in known.items():
        if index not in hinted and found.runs is Runs.DENSE and found.reason:
            known[index] = _explained(found, if_sparse[index])
    rest = [
        Finding(graph, node, Runs.DENSE, reason="XNNPACK does not run it")
        for node in graph.nodes
        if node.index not in known and node.op in _WEIGHTED
    ]
    return sorted([*known.values(), *rest], key=lambda found: found.node.index)


def _explained(found: Finding, if_sparse: Finding) -> Finding:
    """Why an operator runs dense whose file stores no zeros away beside it."""
    reason, fix = if_sparse.reason, if_sparse.fix
    if if_sparse.runs is Runs.BREAKS:
        reason = f"stored with its zeros, as it would break: {reason}"
    elif if_sparse.runs is Runs.SPARSE:
        reason = "it is stored with its zeros, but could run sparse"
        fix = 'Export it with kt.export(..., sparse="auto").'
    return dataclasses.replace(found, reason=reason, fix=fix, cluster=if_sparse.cluster)


def _number(
    cluster: Cluster | None, numbers: dict[int, int], clusters: list[ClusterZeros]
) -> int:
    """The number of a cluster of 1x1 convolutions; 0 of anything else."""
    if cluster is None or not cluster.weights:
        return 0
    if id(cluster) not in numbers:
        numbers[id(cluster)] = len(clusters) + 1
        clusters.append(ClusterZeros(len(clusters) + 1, cluster.weights, cluster.zeros))
    return numbers[id(cluster)]


def _layer(
    graph: Graph, found: Finding, cluster: int, naming: Callable[[str], str] | None
) -> Layer:
    node = found.node
    kernel = _kernel(graph, node)
    scope = _scope(graph, node, kernel)
    return Layer(
        name=naming(scope) if naming else scope.rpartition("/")[0] or scope,
        op=node.op,
        shape=kernel.shape if kernel else (),
        dtype=kernel.dtype if kernel else "",
        encoding=kernel.encoding if kernel else "",
        weights=kernel.values.size if kernel else 0,
        zeros=kernel.zeros if kernel else 0,
        multiplications=speed.multiplications(graph, node),
        runs=str(found.runs),
        kernel=found.kernel,
        reason=found.reason,
        fix=found.fix,
        cluster=cluster,
    )


def _kernel(graph: Graph, node: Node) -> FileTensor | None:
    has = node.op in _WEIGHTED and len(node.inputs) > 1
    return (
        graph.constant(node.inputs[1])
        if has and graph.is_constant(node.inputs[1])
        else None
    )


def _scope(graph: Graph, node: Node, kernel: FileTensor | None) -> str:
    """The operator's name in TensorFlow, of those that were made one."""
    names = [graph.values[index].name for index in node.outputs]
    if kernel is not None and "/" in kernel.name:
        names.insert(0, kernel.name)
    return next((name for name in names[0].split(";") if name), names[0])


def _precision(layers: list[Layer]) -> str:
    kinds = {layer.dtype for layer in layers}
    return next((kind for kind in ("int8", "float16") if kind in kinds), "float32")
