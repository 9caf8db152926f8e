"""What keeps the 1x1 convolutions of a network dense, however many zeros they have."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.graph import Graph, Node
from keras_tickets.xnnpack.explicit_padding import write_padding
from keras_tickets.xnnpack.layout import Layout, State
from keras_tickets.xnnpack.partition import partitions
from keras_tickets.xnnpack.prediction import Execution, OperatorReport, predict
from keras_tickets.xnnpack.rules import Role

# Below any fraction of zeros: a network is judged by its operators alone.
_NO_ZEROS_NEEDED = Fraction(-1)

_NO_WAY_IN = (
    "it reads the input of the network, which XNNPACK's sparse part enters by a 3x3 "
    "convolution of strides 2 on 3 channels only"
)


def sparse_form(file: TfliteFile) -> list[Graph]:
    """Return the graphs of a file as an export with zeros would write them.

    Args:
        file: A `.tflite` file, which is not changed; its weights need no zeros.
    """
    padded = file.copy()
    write_padding(padded)
    return padded.graphs()


def is_pointwise(graph: Graph, node: Node) -> bool:
    """Return whether an operator is a 1x1 convolution."""
    return node.op == "CONV_2D" and graph.values[node.inputs[1]].shape[1:3] == (1, 1)


def obstacles(graph: Graph) -> list[OperatorReport]:
    """Return which operators keep 1x1 convolutions of a graph from running sparse.

    Args:
        graph: A graph of `sparse_form`.

    Returns:
        Each such operator once, with the reason, in their order; none if all 1x1
        convolutions run sparse once enough of their weights are zero.
    """
    findings = {
        found.node.index: found
        for found in predict(graph, _NO_ZEROS_NEEDED, assume_sparse=True)
    }
    dense = {
        node.index
        for node in graph.nodes
        if is_pointwise(graph, node)
        and (node.index not in findings or findings[node.index].runs is Execution.DENSE)
    }
    causes = [
        cause
        for found in findings.values()
        if found.runs is Execution.BREAKS
        for cause in _what_breaks(graph, found, findings)
    ]
    for partition in partitions(graph) if dense else ():
        layout = Layout(partition, _NO_ZEROS_NEEDED)
        for state in _kept_dense(layout, dense):
            numbers = state.causes | layout.states[state.leader].causes
            for number in numbers:
                causes += _named(graph, layout, layout.states[number], findings)
    found = {cause.node.index: cause for cause in causes}
    for index in dense - found.keys() if not found else ():
        found[index] = findings.get(index) or _not_taken(graph, graph.nodes[index])
    return [found[index] for index in sorted(found)]


def _kept_dense(layout: Layout, dense: set[int]) -> Iterator[State]:
    """Yield the 1x1 convolutions that stay dense, and ways out that lead nowhere."""
    for state in layout.states:
        way_out = Role.EXIT in state.eligibility.role and not layout.has_exit
        if state.step.node.index in dense or way_out:
            yield state


def _what_breaks(
    graph: Graph, found: OperatorReport, findings: dict[int, OperatorReport]
) -> list[OperatorReport]:
    """Return who reads an output that they cannot read; else what breaks itself."""
    values = set(found.node.outputs)
    for node in graph.nodes:
        if node.op == "PAD" and node.inputs[0] in values:
            values.update(node.outputs)  # it becomes part of what reads it
    readers = [
        other
        for other in findings.values()
        if values.intersection(other.node.inputs)
        and (other.runs, other.blocking_op) == (Execution.DENSE, None)
        and other.reason
    ]
    return readers or [found]


def _named(
    graph: Graph, layout: Layout, state: State, findings: dict[int, OperatorReport]
) -> list[OperatorReport]:
    """Return the operators that a step which spoils others stands for."""
    found = findings[state.step.node.index]
    if state.eligibility.reason:
        return [found]
    sources = [
        graph.producer[value]
        for value in state.step.inputs
        if value in layout.partition.outer and value in graph.producer
    ]
    foreign = [node for node in sources if node.index not in findings]
    if foreign:
        return [_not_taken(graph, node) for node in foreign]
    if any(value in graph.inputs for value in state.step.inputs):
        return [_dense(graph, state.step.node, _NO_WAY_IN)]
    output = state.step.outputs[0]
    twice = [node for node in graph.nodes if node.inputs.count(output) > 1]
    if twice:
        return [_dense(graph, node, "it reads one image twice") for node in twice]
    if output in layout.partition.leaving:
        return [_dense(graph, state.step.node, "its output is read elsewhere, too")]
    return []


def _not_taken(graph: Graph, node: Node) -> OperatorReport:
    return _dense(graph, node, "XNNPACK does not run it")


def _dense(graph: Graph, node: Node, reason: str) -> OperatorReport:
    return OperatorReport(graph, node, Execution.DENSE, reason=reason)
