"""An `.onnx` file in memory."""

from __future__ import annotations

import collections
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from keras_tickets._util.damage import check_claim
from keras_tickets._util.extras import require
from keras_tickets._util.file_tensor import FileTensor
from keras_tickets._util.model_file import Interface, ModelFile, Port, printable
from keras_tickets.onnx import external_data
from keras_tickets.onnx.decoding import Scattered, find
from keras_tickets.onnx.graph import (
    RUNTIME_DOMAINS,
    STANDARD_DOMAINS,
    constants,
    graphs,
    load,
    model_nodes,
    nodes,
    to_array,
)
from keras_tickets.onnx.quantization import zero_points
from keras_tickets.onnx.scatter import decode


class OnnxFile(ModelFile):
    """An `.onnx` file: a message of ONNX' protocol.

    Args:
        model: The file as a `ModelProto`; whoever changes it changes the file.
        content: The bytes that it was read from.

    Example:

    ```python
    for tensor in OnnxFile.read("model.onnx").tensors():
        print(tensor.name, tensor.shape, tensor.nonzeros, tensor.encoding)
    ```
    """

    suffix = ".onnx"
    format = "ONNX"
    package = "onnxruntime"
    module = "onnxruntime"
    needed = ("onnx", "onnxruntime")

    def __init__(self, model: Any, content: bytes) -> None:
        self.model, self.content = model, content

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a file."""
        return cls(load(content), content)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file at a path, and what lies beside it."""
        file = super().read(path)
        file.beside = external_data.embed(file.model, pathlib.Path(path).parent)
        return file

    def to_bytes(self) -> bytes:
        """Return the bytes of the file, with all changes."""
        return bytes(self.model.SerializeToString())

    def interface(self) -> Interface:
        """Return the inputs and the outputs."""
        graph = self.model.graph
        # Before version 4 of the format each initializer was an input too.
        stored = {proto.name for proto in graph.initializer}
        return Interface(
            tuple(_port(value) for value in graph.input if value.name not in stored),
            tuple(map(_port, graph.output)),
        )

    def notes(self) -> dict[str, tuple[int | str, ...]]:
        """Tell the names that the file has for open axes, such as "batch"."""
        return {
            printable(value.name): tuple(
                printable(dim.dim_param) for dim in value.type.tensor_type.shape.dim
            )
            for value in self.model.graph.input
        }

    def tensors(self) -> list[FileTensor]:
        """Return the constants: initializers and `Constant` nodes.

        A tensor that operators put together (see `scatter.py`) is listed as one, under
        its own name.
        """
        stored, scattered = _stored(self.model)
        zeros = zero_points(self.model)
        return [
            *(_read(name, proto, zeros.get(name)) for name, proto in stored),
            *map(_decode, scattered),
        ]

    def ops(self) -> dict[str, int]:
        """Count the operators, those of the file's own functions too.

        `custom:` stands before what neither the standard, nor ONNX Runtime, nor the
        file itself defines.
        """
        return dict(collections.Counter(name for _, name in self._named_nodes()))

    def foreign(self) -> dict[str, str]:
        """Return the operators that nothing defines, as `ops` tells."""
        return {
            node.op_type: node.name
            for node, name in self._named_nodes()
            if name.startswith("custom:")
        }

    def _named_nodes(self) -> Iterator[tuple[Any, str]]:
        """Yield each node, and what reports call its operator."""
        own = {(entry.domain, entry.name) for entry in self.model.functions}
        has = require("onnx.defs", "export").has
        for node in model_nodes(self.model):
            known = (
                (node.domain, node.op_type) in own
                or node.domain in RUNTIME_DOMAINS
                or (node.domain in STANDARD_DOMAINS and has(node.op_type))
            )
            yield node, node.op_type if known else f"custom:{node.op_type}"

    def name_outputs(self, names: dict[int, str]) -> None:
        """Give the outputs the names that they have in the model."""
        graph = self.model.graph
        taken = {name for node in nodes(graph) for name in (*node.input, *node.output)}
        numbered = re.compile(r"(?:output|Identity)(?:_(\d+))?(?::0)?")
        new = {}
        for output in graph.output:
            if found := numbered.fullmatch(output.name):
                name = names.get(int(found[1] or 0))
                if name and name not in taken:
                    new[output.name] = name
        for value in (*graph.output, *graph.value_info):
            value.name = new.get(value.name, value.name)
        for node in nodes(graph):
            for ends in (node.input, node.output):
                ends[:] = [new.get(name, name) for name in ends]

    def dense_size(self) -> int:
        """Return the size of the file as read, had each tensor kept its zeros."""
        model = type(self.model)()
        model.CopyFrom(self.model)
        decode(model)
        dense = type(self)(model, self.content)
        # ONNX' own sparse tensors are left.
        saved = sum(t.dense_bytes - t.stored_bytes for t in dense.tensors())
        return int(model.ByteSize()) + saved


def _stored(model: Any) -> tuple[list[tuple[str, Any]], list[Scattered]]:
    """Return the constants that are tensors themselves, and the scattered tensors."""
    scattered = [tensor for _, found in find(model.graph) for tensor in found]
    helpers = set[str]().union(*(tensor.helpers for tensor in scattered))
    inner = itertools.chain.from_iterable(map(constants, graphs(model.graph)))
    return [entry for entry in inner if entry[0] not in helpers], scattered


def _decode(tensor: Scattered) -> FileTensor:
    values = tensor.values()
    return FileTensor(
        tensor.name,
        values,
        "scatter",
        tensor.stored_bytes,
        itemsize=tensor.itemsize,
    )


def _read(name: str, proto: Any, zero: Any) -> FileTensor:
    if not hasattr(proto, "indices"):
        values = to_array(proto)
        if zero is None:
            return FileTensor(name, values, "dense", values.nbytes)
        zero = zero.along(values.shape)
        return FileTensor(name, values, "dense", values.nbytes, zero, quantized=True)
    stored, indices = to_array(proto.values), to_array(proto.indices)
    shape = tuple(proto.dims)
    check_claim(shape, stored.itemsize, stored.nbytes + indices.nbytes)
    values = np.zeros(shape, stored.dtype)
    # ONNX allows one linear index per value, or one row of coordinates.
    linear = indices if indices.ndim == 1 else np.ravel_multi_index(indices.T, shape)
    values.reshape(-1)[linear] = stored
    return FileTensor(name, values, "sparse", stored.nbytes + indices.nbytes)


def _port(value: Any) -> Port:
    kinds = require("onnx", "export").TensorProto.DataType
    tensor = value.type.tensor_type
    shape = tuple(
        # Some writers say -1 where others say nothing.
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in tensor.shape.dim
    )
    # ONNX says FLOAT and DOUBLE where all others say float32 and float64.
    name = kinds.Name(tensor.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    return Port(printable(value.name), shape, dtype)
