"""`DENSIFY`, the operator that unpacks a sparse constant when a file is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets.tflite.schema import op_name, operator_code, schema
from keras_tickets.tflite.tensor import constants, make_dense, name_of


def unpack_first(model: Any, sparse: set[int]) -> None:
    """Put a `DENSIFY` between sparse constants and all that reads them.

    Args:
        model: The unpacked file.
        sparse: The `id` of each tensor that is one.
    """
    for graph in model.subgraphs:
        for index, tensor in enumerate(list(graph.tensors)):
            if id(tensor) in sparse:
                _insert(model, graph, index)


def densify(model: Any) -> None:
    """Store each sparse tensor with its zeros, and take the `DENSIFY` out.

    What read the output of one reads the tensor itself.

    Args:
        model: The unpacked file.
    """
    for tensors, buffer in constants(model):
        if tensors[0].sparsity is not None:
            make_dense(tensors, buffer)
    for graph in model.subgraphs:
        _drop(graph, model.operatorCodes)


def _insert(model: Any, graph: Any, source: int) -> None:
    classes = schema()
    tensor = graph.tensors[source]
    dense = classes.TensorT()
    dense.name = f"{name_of(tensor)}/dense"
    dense.shape, dense.type = tensor.shape, tensor.type
    dense.quantization, dense.hasRank = tensor.quantization, tensor.hasRank
    graph.tensors.append(dense)
    target = len(graph.tensors) - 1
    readers = [
        op for op in graph.operators if op.inputs is not None and source in op.inputs
    ]
    if not readers:
        return
    for op in readers:
        op.inputs = np.where(np.asarray(op.inputs) == source, target, op.inputs)
    unpacking = classes.OperatorT()
    unpacking.opcodeIndex = operator_code(model, "DENSIFY", version=1)
    unpacking.inputs = np.array([source], np.int32)
    unpacking.outputs = np.array([target], np.int32)
    unpacking.builtinOptionsType = classes.BuiltinOptions.DensifyOptions
    unpacking.builtinOptions = classes.DensifyOptionsT()
    first = next(i for i, op in enumerate(graph.operators) if op is readers[0])
    graph.operators.insert(first, unpacking)


def _drop(graph: Any, codes: list[Any]) -> None:
    unpacking = [
        op for op in graph.operators if op_name(codes[op.opcodeIndex]) == "DENSIFY"
    ]
    source = {int(op.outputs[0]): int(op.inputs[0]) for op in unpacking}
    graph.operators = [op for op in graph.operators if op not in unpacking]
    for op in graph.operators:
        if op.inputs is not None:
            op.inputs = np.array([source.get(int(i), i) for i in op.inputs], np.int32)
    for index in source:
        # Taking a tensor out would renumber all others; a blank one costs nothing.
        graph.tensors[index] = schema().TensorT(name="", shape=[])
