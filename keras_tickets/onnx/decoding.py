"""Finds the tensors that an `.onnx` file holds in the scatter encoding.

See `encodings.py`. They are known by what the operators do, not by names: a file whose
nodes other tools renamed, reordered or turned into `Constant` nodes is read as well.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_tickets._util.damage import check_claim
from keras_tickets._util.file_tensor import Array
from keras_tickets.onnx.deltas import unpack
from keras_tickets.onnx.graph import (
    attributes,
    bodies,
    constants,
    is_standard,
    to_array,
    type_number,
    uses,
)


@dataclasses.dataclass(frozen=True)
class Scattered:
    """A tensor in the scatter encoding.

    Args:
        name: Its name, as its consumers know it.
        shape: Its shape.
        size: How many values it has.
        dtype: The type that its consumers see.
        deltas: The `TensorProto` of the deltas.
        entries: The `TensorProto` of the entries.
        made: The names that the nodes of the encoding make, its own among them.
        helpers: The names of the constants that the encoding consists of.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    dtype: np.dtype[Any]
    deltas: Any
    entries: Any
    made: frozenset[str]
    helpers: frozenset[str]

    @property
    def is_half(self) -> bool:
        """Whether the entries are float16."""
        return bool(self.entries.data_type == type_number("FLOAT16"))

    @property
    def itemsize(self) -> int:
        """Bytes of one entry."""
        return to_array(self.entries).itemsize

    @property
    def stored_bytes(self) -> int:
        """Bytes of the deltas and the entries."""
        return to_array(self.deltas).nbytes + to_array(self.entries).nbytes

    def values(self) -> Array:
        """Return the tensor, decoded.

        Raises:
            ValueError: If the deltas do not fit the tensor, or are far too few for it.
        """
        entries = to_array(self.entries).astype(self.dtype)
        try:
            check_claim((self.size,), entries.itemsize, self.stored_bytes)
            flat = unpack(to_array(self.deltas), entries, self.size)
        except ValueError as error:
            raise ValueError(f"Tensor '{self.name}' is damaged: {error}") from error
        return flat.reshape(self.shape)


def find(graph: Any) -> list[tuple[Any, list[Scattered]]]:
    """Find the scattered tensors of a graph and of the bodies in it.

    Args:
        graph: The graph of a model.

    Returns:
        Each graph, outer ones first, with its own scattered tensors.
    """
    return [(scope.graph, list(_scattered(scope))) for scope in _scopes(graph, None)]


class _Scope:
    """What the names in a graph stand for, those of the graphs around it included."""

    def __init__(self, graph: Any, outer: _Scope | None) -> None:
        self.graph = graph
        self._constants: dict[str, Any] = dict(outer._constants) if outer else {}
        self._makers: dict[str, Any] = dict(outer._makers) if outer else {}
        self._constants.update(constants(graph))
        for entry in graph.input:
            # Whoever runs the model may pass another value.
            self._constants.pop(entry.name, None)
        self._makers.update({name: n for n in graph.node for name in n.output})
        results = (entry.name for entry in graph.output)
        self.uses = collections.Counter([*uses(graph.node), *results])

    def made_by(self, name: str, op_type: str) -> Any:
        """Return the node that makes a value, if it is this operator; else None."""
        node = self._makers.get(name)
        return node if node is not None and is_standard(node, op_type) else None

    def constant(self, name: str) -> Any:
        """Return the `TensorProto` of a dense constant; None if the name is of none."""
        proto = self._constants.get(name)
        return None if hasattr(proto, "indices") else proto

    def integers(self, name: str) -> list[int] | None:
        """Return the numbers in a small constant; None if the name is none."""
        proto = self.constant(name)
        return None if proto is None else to_array(proto).reshape(-1).tolist()

    def behind_cast(self, name: str) -> str:
        """Return the input of the `Cast` that makes a value; else its own name."""
        cast = self.made_by(name, "Cast")
        return name if cast is None else str(cast.input[0])


def _scopes(graph: Any, outer: _Scope | None) -> Iterator[_Scope]:
    scope = _Scope(graph, outer)
    yield scope
    for node in graph.node:
        for body in bodies(node):
            yield from _scopes(body, scope)


def _scattered(scope: _Scope) -> Iterator[Scattered]:
    for node in scope.graph.node:
        found = _match(scope, node) if is_standard(node, "ScatterElements") else None
        if found is not None:
            yield found


def _match(scope: _Scope, scatter: Any) -> Scattered | None:
    """Read the encoding that ends in a `ScatterElements`; None if that is another."""
    zeros = scope.made_by(scatter.input[0], "ConstantOfShape")
    sums = scope.made_by(scatter.input[1], "CumSum")
    if zeros is None or sums is None or not (_is_plain(scatter) and _is_plain(sums)):
        return None
    deltas, entries = map(scope.behind_cast, (sums.input[0], scatter.input[2]))
    stored = scope.constant(deltas), scope.constant(entries)
    size, axis = scope.integers(zeros.input[0]), scope.integers(sums.input[1])
    fill = _fill(zeros)
    if None in stored or size is None or len(size) != 1 or fill.any():
        return None
    if axis not in ([0], [-1]):
        return None
    name, shape, reshaped = _shape(scope, scatter.output[0], size[0])
    helpers = {deltas, entries, zeros.input[0], sums.input[1], *reshaped}
    made = {*sums.input, *scatter.input, scatter.output[0], name} - helpers
    return Scattered(
        name=name,
        shape=shape,
        size=size[0],
        dtype=fill.dtype,
        deltas=stored[0],
        entries=stored[1],
        made=frozenset(made),
        helpers=frozenset(helpers),
    )


def _is_plain(node: Any) -> bool:
    """Return whether a `ScatterElements` or `CumSum` has no attribute that matters."""
    found = attributes(node)
    return (
        found.pop("axis", 0) in (0, -1)
        and found.pop("reduction", b"none") == b"none"
        and not any(found.values())
    )


def _fill(constant_of_shape: Any) -> Array:
    value = attributes(constant_of_shape).get("value")
    return np.zeros(1, np.float32) if value is None else to_array(value)


def _shape(
    scope: _Scope, flat: str, size: int
) -> tuple[str, tuple[int, ...], list[str]]:
    """Return a tensor's name, its shape, and the constant of that if it is not flat.

    The name is that of the `Reshape`, if this is the only use of the flat tensor.
    """
    users = [node for node in scope.graph.node if flat in node.input]
    if scope.uses[flat] == len(users) == 1 and is_standard(users[0], "Reshape"):
        _, shape = users[0].input
        sizes = scope.integers(shape)
        if sizes is not None and 0 not in sizes:
            # A size of -1 is what the others leave.
            view = np.broadcast_to(np.float32(0), size).reshape(sizes)
            return users[0].output[0], view.shape, [shape]
    return flat, (size,), []
