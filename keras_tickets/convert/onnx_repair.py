"""What tf2onnx leaves undone: operators of TensorFlow that ONNX writes otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets.convert.onnx_forms import Names
from keras_tickets.convert.onnx_graph import graphs, load, replace, to_tensor
from keras_tickets.extras import require


def repair(content: bytes) -> bytes:
    """Writes operators that ONNX lacks in operators that it has.

    `Erfc(x)`, in which TensorFlow computes the exact GELU, is `1 - Erf(x)`.

    Args:
        content: The bytes of an `.onnx` file.

    Returns:
        The bytes of a file that computes the same.

    Raises:
        ValueError: If the bytes are no `.onnx` file.
    """
    model = load(content)
    names = Names(model.graph)
    for graph in graphs(model.graph):
        nodes = []
        for node in graph.node:
            is_erfc = node.op_type == "Erfc"
            nodes += _complement(graph, node, names) if is_erfc else [node]
        replace(graph.node, nodes)
    return bytes(model.SerializeToString())


def _complement(graph: Any, node: Any, names: Names) -> list[Any]:
    make_node = require("onnx.helper", "export").make_node
    one, erf = (names.new(f"{node.output[0]}/{name}") for name in ("one", "erf"))
    graph.initializer.append(to_tensor(np.ones((), np.float32), one))
    return [
        make_node("Erf", node.input, [erf], name=erf),
        make_node("Sub", [one, erf], node.output, name=node.name),
    ]
