"""A `.tflite` file as nodes and values, without a runtime."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from keras_tickets._util.file_tensor import FileTensor
from keras_tickets.tflite.schema import op_name, schema
from keras_tickets.tflite.tensor import constants, name_of, read

# They give constants another form when the file is loaded.
UNPACKING = ("DENSIFY", "DEQUANTIZE")


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of a graph.

    Args:
        name: Its name in the file.
        shape: Its shape.
        dtype: TFLite's name of its type, such as `"FLOAT32"`.
        quantized: Whether integers stand for real numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantized: bool

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.dtype in ("FLOAT32", "FLOAT16")


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator of a graph.

    Args:
        index: Its position among the nodes.
        op: TFLite's name of the operator.
        version: The version of the operator.
        inputs: Which values it reads; -1 where it reads none.
        outputs: Which values it computes.
        options: TFLite's options.
    """

    index: int
    op: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = dataclasses.field(repr=False)


class Graph:
    """One subgraph of a file.

    Args:
        model: The unpacked file.
        graph: The subgraph.
    """

    def __init__(self, model: Any, graph: Any) -> None:
        self._model = model
        self._tensors = graph.tensors
        self.values = [_value(tensor) for tensor in graph.tensors]
        self.nodes = [
            _node(index, model.operatorCodes[op.opcodeIndex], op)
            for index, op in enumerate(graph.operators or [])
        ]
        self.inputs = _numbers(graph.inputs)
        self.outputs = _numbers(graph.outputs)
        self.producer = {out: node for node in self.nodes for out in node.outputs}

    @functools.cached_property
    def _stored(self) -> dict[int, tuple[Any, Any]]:
        """Where each constant that holds numbers is stored, by index of the value."""
        index = {id(tensor): i for i, tensor in enumerate(self._tensors)}
        return {
            index[id(tensor)]: (tensor, buffer)
            for holders, buffer in constants(self._model)
            for tensor in holders
            if id(tensor) in index
        }

    def source(self, index: int) -> int | None:
        """Return which stored constant a value is; `None` if it is computed."""
        while index not in self._stored:
            node = self.producer.get(index)
            if node is None or node.op not in UNPACKING:
                return None
            index = node.inputs[0]
        return index

    def is_constant(self, index: int) -> bool:
        """Return whether a value is known before the network runs."""
        return index >= 0 and self.source(index) is not None

    def constant(self, index: int) -> FileTensor:
        """Return the constant that a value is, decoded."""
        source = self.source(index)
        if source is None:
            raise KeyError(f"'{self.values[index].name}' is computed, no constant.")
        return self._read(source)

    @functools.cache  # noqa: B019 (a graph lives as long as a report is made)
    def _read(self, index: int) -> FileTensor:
        return read(*self._stored[index])

    def is_unpacked(self, index: int) -> bool:
        """Return whether a value is a constant that DENSIFY unpacks: XNNPACK's hint."""
        node = self.producer.get(index)
        if node is None or node.op not in UNPACKING:
            return False
        return node.op == "DENSIFY" or self.is_unpacked(node.inputs[0])

    def is_sparse(self, index: int) -> bool:
        """Return whether a value is a constant that is stored without its zeros."""
        source = self.source(index)
        return source is not None and self._tensors[source].sparsity is not None

    def scope(self, node: Node) -> str:
        """Return the name of an operator where the file was converted from."""
        names = [self.values[index].name for index in node.outputs]
        weights = node.inputs[1] if len(node.inputs) > 1 else -1
        if self.is_constant(weights) and self.values[weights].rank > 1:
            names.insert(0, self.constant(node.inputs[1]).name)
        # Of operators that were made one, the first; names of the converter's own have
        # no scope.
        first = next((name for name in names if "/" in name), names[-1])
        return next((name for name in first.split(";") if name), first)


def _value(tensor: Any) -> Value:
    quantization = tensor.quantization
    return Value(
        name_of(tensor),
        _numbers(tensor.shape),
        _type_names().get(tensor.type, f"TYPE_{tensor.type}"),
        quantization is not None and quantization.scale is not None,
    )


def _node(index: int, code: Any, op: Any) -> Node:
    return Node(
        index,
        op_name(code),
        int(code.version),
        _numbers(op.inputs),
        _numbers(op.outputs),
        op.builtinOptions,
    )


@functools.cache
def _type_names() -> dict[int, str]:
    return {
        number: name
        for name, number in vars(schema().TensorType).items()
        if name.isupper()
    }


def _numbers(vector: Any) -> tuple[int, ...]:
    return tuple(_each(vector))


def _each(vector: Any) -> Iterator[int]:
    return (int(number) for number in ([] if vector is None else vector))
