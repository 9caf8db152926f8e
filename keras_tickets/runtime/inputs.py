"""Inputs to time a file on: any values do, as long as the file accepts them."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from keras_tickets._util.damage import reading
from keras_tickets.runtime import formats
from keras_tickets.runtime.interpreters import Arrays, values

# Dimensions that the file leaves open, the batch size apart, get this size.
_OPEN_SIZE = 32


def of_file(path: pathlib.Path) -> Arrays:
    """Draw inputs for a file, the same ones each time.

    Args:
        path: A `.tflite` or `.onnx` file.

    Returns:
        Input name -> values, at batch size 1 where the file leaves it open.

    Raises:
        RuntimeError: If the file is damaged, or takes what is no number.
    """
    with reading(f"The inputs of '{path}' cannot be read", RuntimeError):
        ports = formats.read(path).interface().inputs
    if strange := [port for port in ports if not _is_number(port.dtype)]:
        raise RuntimeError(
            f"The input {strange[0]} of '{path}' takes no numbers, which are all that "
            "is drawn for a file. Export the part of the network behind it."
        )
    return {port.name: values(concrete(port.shape), port.dtype) for port in ports}


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biufcV"
    except TypeError:  # As of TFLite's strings, 4-bit numbers and resources.
        return False


def concrete(shape: Any) -> list[int]:
    """Give open dimensions a size; an open batch size is 1.

    Args:
        shape: Sizes; an open one is -1, None or a name.

    Returns:
        The sizes.

    Example:
    >>> concrete([None, "height", 3])
    [1, 32, 3]
    """
    sizes = [size if isinstance(size, (int, np.integer)) else -1 for size in shape]
    return [
        int(size) if size > 0 else (1 if axis == 0 else _OPEN_SIZE)
        for axis, size in enumerate(sizes)
    ]
