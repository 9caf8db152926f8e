"""Reads and rewrites the constants of a `.tflite` file."""

from __future__ import annotations

import collections
import re

from keras_tickets._util.file_tensor import (
    FileTensor,
    Rewriter,
    rewritten,
)
from keras_tickets.convert.tflite_encoding import densify
from keras_tickets.tflite.schema import (
    op_name,
    pack,
    unpack,
)
from keras_tickets.tflite.tensor import (
    constants,
    read,
    write,
)


def tensors(content: bytes) -> list[FileTensor]:
    """Lists the constants of a `.tflite` file, each stored buffer once.

    Args:
        content: The bytes of the file.

    Returns:
        The constant tensors, sparse ones decoded.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
        ImportError: If `ai_edge_litert` is not installed.

    Example:

    ```python
    for tensor in tensors(pathlib.Path("model.tflite").read_bytes()):
        print(tensor.name, tensor.shape, tensor.nonzeros, tensor.encoding)
    ```
    """
    model = unpack(content)
    return [read(holders[0], buffer) for holders, buffer in constants(model)]


def ops(content: bytes) -> dict[str, int]:
    """Counts the operators of a `.tflite` file, those of all its subgraphs.

    Args:
        content: The bytes of the file.

    Returns:
        Operator name -> how often; operators outside TFLite's built-in set have
        the prefix `custom:` (TensorFlow's own are `custom:Flex...`).
    """
    model = unpack(content)
    names = [op_name(code) for code in model.operatorCodes]
    return dict(
        collections.Counter(
            names[operator.opcodeIndex]
            for graph in model.subgraphs
            for operator in graph.operators or []
        )
    )


def foreign(content: bytes) -> dict[str, str]:
    """The operators of a `.tflite` file that are not built into the runtime.

    Args:
        content: The bytes of the file.

    Returns:
        Operator -> where it comes from, which such a file does not tell.
    """
    return {
        name.removeprefix("custom:"): ""
        for name in ops(content)
        if name.startswith("custom:")
    }


def rewrite(content: bytes, rewriter: Rewriter) -> bytes:
    """Rewrites a `.tflite` file tensor by tensor.

    Args:
        content: The bytes of the file.
        rewriter: Called with each constant tensor; returns new values of the same
            shape and dtype, or None. They are stored in the tensor's encoding.

    Returns:
        The bytes of the new file.

    Raises:
        ValueError: If the bytes are no `.tflite` file, or new values do not fit.
    """
    model = unpack(content)
    for holders, buffer in constants(model):
        values = rewritten(read(holders[0], buffer), rewriter)
        if values is not None:
            write(holders, buffer, values)
    return pack(model, len(content))


def name_outputs(content: bytes, names: dict[int, str]) -> bytes:
    """Gives the outputs of a `.tflite` file's signature the names of the model's.

    Args:
        content: The bytes of the file.
        names: The names, by position in the model's order. Only outputs that the
            converter numbered (`output_0`) take one.

    Returns:
        The bytes of the new file.
    """
    model = unpack(content)
    for signature in model.signatureDefs or []:
        for output in signature.outputs:
            numbered = re.fullmatch(rb"output_(\d+)", output.name)
            if numbered and (name := names.get(int(numbered[1]))):
                output.name = name.encode()
    return pack(model, len(content))


def dense_bytes(content: bytes) -> int:
    """The size of a `.tflite` file if each tensor were stored with its zeros."""
    if all(tensor.encoding == "dense" for tensor in tensors(content)):
        return len(content)
    return len(densify(content))
