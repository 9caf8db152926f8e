"""The inputs and outputs of a `.tflite` file: by name, and as its graph orders them."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_tickets._util.model_file import Interface, Port, printable
from keras_tickets.tflite.schema import schema


def by_name(model: Any) -> Interface:
    """Return the inputs and outputs of an unpacked file.

    They have the names of one signature, which are Keras' own; a file without
    signatures has only the names of its tensors.
    """
    if signature := _signature(model):
        graph = model.subgraphs[signature.subgraphIndex]
        return Interface(
            tuple(_mapped(graph, entry) for entry in signature.inputs or []),
            tuple(_mapped(graph, entry) for entry in signature.outputs or []),
            tuple(dict.fromkeys(map(_key, (signature, *model.signatureDefs)))),
        )
    graph = model.subgraphs[0]
    return Interface(
        tuple(_port(graph.tensors[index]) for index in graph.inputs),
        tuple(_port(graph.tensors[index]) for index in graph.outputs),
    )


@dataclasses.dataclass(frozen=True)
class OrderedInterface:
    """The inputs and outputs as the graph orders them.

    Programs that know no names count the tensors of the graph; the order of the
    signature may be another one.

    Args:
        inputs: The inputs in the order of the graph.
        outputs: The tensors that come out, in the order of the graph.
        positions: The name of each output -> its place in `outputs`; in the order of
            `by_name`.
    """

    inputs: list[Port]
    outputs: list[Port]
    positions: dict[str, int]


def by_order(model: Any) -> OrderedInterface:
    """Return where the names of `by_name` lie in the graph of an unpacked file."""
    signature = _signature(model)
    graph = model.subgraphs[signature.subgraphIndex if signature else 0]
    sources, results = list(graph.inputs), list(graph.outputs)
    ports = [_port(graph.tensors[index]) for index in (*sources, *results)]
    inputs, outputs = ports[: len(sources)], ports[len(sources) :]
    if signature is None:
        positions = {port.name: i for i, port in enumerate(outputs)}
        return OrderedInterface(inputs, outputs, positions)
    names = {e.tensorIndex: printable(e.name) for e in signature.inputs or []}
    inputs = [
        dataclasses.replace(port, name=names.get(index, port.name))
        for index, port in zip(sources, inputs, strict=True)
    ]
    positions = {
        printable(e.name): results.index(e.tensorIndex) for e in signature.outputs or []
    }
    return OrderedInterface(inputs, outputs, positions)


def _signature(model: Any) -> Any:
    """Return the signature that is read, run and timed; None if there is none.

    LiteRT's program for requests (`runtime/interpreters.py`) chooses the same.
    """
    found = list(model.signatureDefs or [])
    named = (entry for entry in found if _key(entry) == "serving_default")
    return next(named, found[0] if found else None)


def _key(signature: Any) -> str:
    return printable(signature.signatureKey)


def _mapped(graph: Any, entry: Any) -> Port:
    port = _port(graph.tensors[entry.tensorIndex])
    return dataclasses.replace(port, name=printable(entry.name))


def _port(tensor: Any) -> Port:
    types = {number: name for name, number in vars(schema().TensorType).items()}
    # `shape` holds a 1 where the size is open; the signature says so with -1.
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    sizes = [] if shape is None else shape.tolist()
    return Port(
        printable(tensor.name),
        tuple(None if size < 0 else size for size in sizes),
        types[tensor.type].lower(),
    )
