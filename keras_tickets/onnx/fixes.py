"""Where converters leave a graph that ONNX Runtime does not run, or runs wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets._util.extras import require
from keras_tickets.onnx.encodings import Names
from keras_tickets.onnx.graph import graphs, replace, to_tensor


def repair(model: Any) -> None:
    """Change a graph so that ONNX Runtime computes what it says.

    `Erfc(x)`, in which TensorFlow computes the exact GELU, is no operator of ONNX: it
    is `1 - Erf(x)`. A `MaxPool` behind a `Pad` tells its indices too.

    Args:
        model: A `ModelProto`; it is changed, and computes the same.
    """
    names = Names(model.graph)
    for graph in graphs(model.graph):
        makers = {name: node for node in graph.node for name in node.output}
        nodes = []
        for node in graph.node:
            if node.op_type == "MaxPool" and _loses_padding(node, makers):
                node.output.append(names.new(f"{node.output[0]}/indices"))
            is_erfc = node.op_type == "Erfc"
            nodes += _complement(graph, node, names) if is_erfc else [node]
        replace(graph.node, nodes)


def _loses_padding(pool: Any, makers: dict[str, Any]) -> bool:
    """Return whether ONNX Runtime would merge the `Pad` before a `MaxPool` into it.

    `MaxPool` pads with what is never the largest, so zeros around negative numbers were
    lost (seen in 1.31: ResNet50V2 was off by 2 %). With two outputs it is left alone,
    but slower; behind a ReLU both paddings are the same.
    """
    pad = makers.get(pool.input[0])
    if pad is None or pad.op_type != "Pad" or len(pool.output) > 1:
        return False
    before = makers.get(pad.input[0])
    return before is None or before.op_type != "Relu"


def _complement(graph: Any, node: Any, names: Names) -> list[Any]:
    make_node = require("onnx.helper", "export").make_node
    one, erf = (names.new(f"{node.output[0]}/{name}") for name in ("one", "erf"))
    graph.initializer.append(to_tensor(np.ones((), np.float32), one))
    return [
        make_node("Erf", node.input, [erf], name=erf),
        make_node("Sub", [one, erf], node.output, name=node.name),
    ]
