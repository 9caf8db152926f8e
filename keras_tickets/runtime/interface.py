"""What goes into a file and what comes out: names, shapes, types."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_tickets._util.extras import require
from keras_tickets.onnx.graph import load
from keras_tickets.tflite.schema import (
    schema,
    unpack,
)


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or an output of a file.

    Args:
        name: Its name.
        shape: Its shape; None stands for a size that is left open.
        dtype: The type of one element, such as `"float32"`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        """Returns `image (?, 96, 96, 3) float32`."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({sizes}) {self.dtype}"


# The inputs and the outputs of a file.
Interface = tuple[list[Port], list[Port]]


def of_tflite(content: bytes) -> Interface:
    """Reads the inputs and outputs of a `.tflite` file.

    They have the names of the first signature, which are Keras' own; a file without
    signatures has only the names of its tensors.

    Args:
        content: The bytes of the file.

    Returns:
        The inputs and the outputs.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
    """
    model = unpack(content)
    if model.signatureDefs:
        signature = model.signatureDefs[0]
        graph = model.subgraphs[signature.subgraphIndex]
        return (
            [_mapped(graph, entry) for entry in signature.inputs or []],
            [_mapped(graph, entry) for entry in signature.outputs or []],
        )
    graph = model.subgraphs[0]
    return (
        [_tflite_port(graph.tensors[index]) for index in graph.inputs],
        [_tflite_port(graph.tensors[index]) for index in graph.outputs],
    )


@dataclasses.dataclass(frozen=True)
class Wires:
    """The inputs and outputs of a `.tflite` as its graph orders them.

    Programs that know no names count the tensors of the graph; the order of the
    signature may be another one.

    Args:
        inputs: The inputs in the order of the graph.
        outputs: The tensors that come out, in the order of the graph.
        names: The name of each output -> its place in `outputs`; in the order of
            `of_tflite`.
    """

    inputs: list[Port]
    outputs: list[Port]
    names: dict[str, int]


def wires_of_tflite(content: bytes) -> Wires:
    """Reads how the names of `of_tflite` lie in the graph.

    Args:
        content: The bytes of the file.

    Returns:
        The wires.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
    """
    model = unpack(content)
    signature = next(iter(model.signatureDefs or []), None)
    graph = model.subgraphs[signature.subgraphIndex if signature else 0]
    sources, results = list(graph.inputs), list(graph.outputs)
    ports = [_tflite_port(graph.tensors[index]) for index in (*sources, *results)]
    inputs, outputs = ports[: len(sources)], ports[len(sources) :]
    if signature is None:
        return Wires(inputs, outputs, {p.name: i for i, p in enumerate(outputs)})
    names = {entry.tensorIndex: text(entry.name) for entry in signature.inputs or []}
    inputs = [
        dataclasses.replace(port, name=names.get(index, port.name))
        for index, port in zip(sources, inputs, strict=True)
    ]
    ends = signature.outputs or []
    return Wires(
        inputs, outputs, {text(e.name): results.index(e.tensorIndex) for e in ends}
    )


def of_onnx(content: bytes) -> Interface:
    """Reads the inputs and outputs of an `.onnx` file.

    Args:
        content: The bytes of a file that `onnx_file` could read.

    Returns:
        The inputs and the outputs.
    """
    graph = load(content).graph
    # Before version 4 of the format each initializer was an input too.
    constants = {proto.name for proto in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    return [_onnx_port(v) for v in inputs], [_onnx_port(v) for v in graph.output]


def text(name: str | bytes | None) -> str:
    """A name of a file as text for a terminal.

    Args:
        name: What the file's reader returned; damaged text may come as bytes.

    Returns:
        The name; a mark stands for what is no printable character.

    Example:
    >>> text(b"dense/kernel")
    'dense/kernel'
    """
    raw = name or ""
    found = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in found)


def _mapped(graph: Any, entry: Any) -> Port:
    port = _tflite_port(graph.tensors[entry.tensorIndex])
    return dataclasses.replace(port, name=text(entry.name))


def _tflite_port(tensor: Any) -> Port:
    types = {number: name for name, number in vars(schema().TensorType).items()}
    # `shape` holds a 1 where the size is open; the signature says so with -1.
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    sizes = [] if shape is None else shape.tolist()
    return Port(
        text(tensor.name),
        tuple(None if size < 0 else size for size in sizes),
        types[tensor.type].lower(),
    )


def _onnx_port(value: Any) -> Port:
    kinds = require("onnx", "export").TensorProto.DataType
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
    )
    # ONNX says FLOAT and DOUBLE where all others say float32 and float64.
    name = kinds.Name(tensor.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    return Port(text(value.name), shape, dtype)
