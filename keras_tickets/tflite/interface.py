"""The inputs and outputs of a `.tflite` file: by name, and as its graph orders them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

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


def stored_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape that is stored for each input, with a size for open axes."""
    return {
        name: tuple(map(int, [] if tensor.shape is None else tensor.shape))
        for name, tensor in _inputs(model).items()
    }


def fix(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give the inputs of an unpacked file these shapes, and leave no axis open."""
    for name, tensor in _inputs(model).items():
        tensor.shape = np.array(shapes[name], np.int32)
    signature = _signature(model)
    graph = model.subgraphs[signature.subgraphIndex if signature else 0]
    for tensor in graph.tensors:
        tensor.shapeSignature = None


def _inputs(model: Any) -> dict[str, Any]:
    """Return the tensors of the inputs by the names of `by_name`."""
    if signature := _signature(model):
        graph = model.subgraphs[signature.subgraphIndex]
        return {
            printable(entry.name): graph.tensors[entry.tensorIndex]
            for entry in signature.inputs or []
        }
    graph = model.subgraphs[0]
    found = (graph.tensors[index] for index in graph.inputs)
    return {printable(tensor.name): tensor for tensor in found}


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
    sizes = [] if tensor.shape is None else [*tensor.shape]
    said = [] if tensor.shapeSignature is None else [*tensor.shapeSignature]
    if len(said) == len(sizes):
        sizes = said
    return Port(
        printable(tensor.name),
        tuple(None if size < 0 else int(size) for size in sizes),
        types[tensor.type].lower(),
    )
