"""The encodings in which an `.onnx` file can hold a float32 tensor.

All in standard operators. Dense: an initializer. Half: a float16 one and a `Cast`.
Scatter, without the zeros:

    deltas (uint8 or uint16) -> Cast -> CumSum -.
    entries (float32, or float16 -> Cast) ------+-> ScatterElements -> Reshape -> tensor
    size -> ConstantOfShape --------------------'

Runtimes fold constants: after loading, only the tensor is left of it. The operators
and their types are in each opset from 11 on.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from keras_tickets._util.extras import require
from keras_tickets._util.file_tensor import Array
from keras_tickets.onnx import deltas as packing
from keras_tickets.onnx.graph import names, to_tensor, type_number

# The first opset with CumSum and ScatterElements.
LOWEST_OPSET = 11


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What stands for one tensor in a graph; encodings may share constants and nodes.

    Args:
        constants: Initializers.
        nodes: Nodes, in order; the last one makes the tensor. If there are none, the
            first constant is it.
        is_half: Whether the values are stored as float16.
    """

    constants: tuple[Any, ...]
    nodes: tuple[Any, ...] = ()
    is_half: bool = False

    @property
    def name(self) -> str:
        """The tensor's name."""
        if not self.nodes:
            return str(self.constants[0].name)
        return str(self.nodes[-1].output[0])

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return sum(map(_field_bytes, (*self.constants, *self.nodes)))


class Names:
    """Makes new names for values of a model.

    Args:
        graph: The model's graph.
    """

    def __init__(self, graph: Any) -> None:
        self._taken = names(graph)
        self._counts: collections.Counter[str] = collections.Counter()

    def new(self, stem: str) -> str:
        """Return a name that begins with `stem` and that no value has yet."""
        while True:
            count = self._counts[stem]
            self._counts[stem] += 1
            name = f"{stem}_{count}" if count else stem
            if name not in self._taken:
                self._taken.add(name)
                return name


def dense_encoding(name: str, values: Array) -> Encoding:
    """Return a tensor as it is."""
    return Encoding((to_tensor(values, name),))


def half_encoding(name: str, values: Array, names: Names) -> Encoding:
    """Return a tensor in float16, and a `Cast` to float32."""
    stored = to_tensor(_half(values), names.new(f"{name}_float16"))
    return Encoding((stored,), (_cast(stored.name, name, "FLOAT"),), is_half=True)


class Shared:
    """What the scatter encodings of one graph have in common.

    Args:
        names: Makes names.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self.axis = to_tensor(np.array(0, np.int32), names.new("axis"))
        self._zeros: dict[int, tuple[Any, Any]] = {}

    def zeros(self, size: int) -> tuple[Any, Any]:
        """Return the constant and the node that make zeros; one pair for each size."""
        if size not in self._zeros:
            constant = to_tensor(np.array([size], np.int64), self._names.new("size"))
            node = _node("ConstantOfShape", [constant.name], self._names.new("zeros"))
            self._zeros[size] = constant, node
        return self._zeros[size]


def scatter_encoding(
    name: str, values: Array, shared: Shared, names: Names, is_half: bool
) -> Encoding:
    """Return a tensor as deltas, entries, and the nodes that put these in place.

    Args:
        name: The tensor's name.
        values: Its values: at least one, at most 2^31 - 1.
        shared: What the encodings of this graph have in common.
        names: Makes the names of the helpers.
        is_half: Whether the entries are stored in float16.

    Returns:
        The encoding.
    """
    packed = packing.pack(_half(values) if is_half else values)
    deltas = to_tensor(packed[0], names.new("gaps"))
    entries = to_tensor(packed[1], names.new("entries"))
    size, zeros = shared.zeros(values.size)
    constants, nodes = [deltas, entries, size, shared.axis], [zeros]
    source = entries.name
    if is_half:
        source = names.new("widened")
        nodes.append(_cast(entries.name, source, "FLOAT"))
    steps, positions = names.new("steps"), names.new("positions")
    flat = names.new("flat") if values.ndim != 1 else name
    nodes += [
        _cast(deltas.name, steps, "INT32"),
        _node("CumSum", [steps, shared.axis.name], positions),
        _node("ScatterElements", [zeros.output[0], positions, source], flat),
    ]
    if values.ndim != 1:
        shape = to_tensor(np.array(values.shape, np.int64), names.new("shape"))
        constants.append(shape)
        nodes.append(_node("Reshape", [flat, shape.name], name))
    return Encoding(tuple(constants), tuple(nodes), is_half)


def _node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    make_node = require("onnx.helper", "export").make_node
    return make_node(op_type, inputs, [output], **attributes)


def _cast(source: str, output: str, to: str) -> Any:
    return _node("Cast", [source], output, to=type_number(to))


def _half(values: Array) -> Array:
    # Whoever stores the encoding checks first that nothing overflows.
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _field_bytes(message: Any) -> int:
    """Return what a message takes as a field of a graph: a tag, its length, itself."""
    length = int(message.ByteSize())
    return 1 + max(1, (length.bit_length() + 6) // 7) + length
