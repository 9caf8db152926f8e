"""Inputs to time a file on: any values do, as long as the file accepts them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_tickets._util.damage import reading
from keras_tickets.runtime import formats, sizes
from keras_tickets.runtime.interpreters import Arrays

# Dimensions that are left open, the batch size apart, get this size.
_OPEN_SIZE = 32


def of_file(path: pathlib.Path, given: Mapping[str, Any] | None = None) -> Arrays:
    """Draw inputs for a file, the same ones each time.

    Args:
        path: A `.tflite` or `.onnx` file.
        given: Input name -> shape, where somebody chose one.

    Returns:
        Input name -> values, of the shapes that `sizes.choose` finds.

    Raises:
        RuntimeError: If the file is damaged, takes what is no number, or runs at no
            size that was tried.
    """
    with reading(f"The inputs of '{path}' cannot be read", RuntimeError):
        ports = formats.read(path).interface().inputs
    return sizes.draw(path, ports, sizes.choose(path, given).shapes)


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
