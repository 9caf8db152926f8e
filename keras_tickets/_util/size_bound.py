"""How small a file could be: a size to hold every exported file against.

A sparse tensor needs its non-zero values and their positions. There are
`C(size, nonzeros)` ways to choose the positions, so `log2` of that many bits tell which
one it is, and without knowing more about the pattern nothing shorter can.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from keras_tickets._util.file_tensor import FileTensor


def tensor_bound(nonzeros: int, size: int, itemsize: int) -> float:
    """Return the bytes that a sparse tensor needs.

    Args:
        nonzeros: How many of its values are not zero.
        size: How many values it has.
        itemsize: Bytes of one value.

    Returns:
        `nonzeros * itemsize + log2(C(size, nonzeros)) / 8`.

    Example:
    >>> tensor_bound(nonzeros=1, size=256, itemsize=4)
    5.0
    """
    choices = (
        math.lgamma(size + 1)
        - math.lgamma(nonzeros + 1)
        - math.lgamma(size - nonzeros + 1)
    )
    # Rounded: lgamma is exact to some 1e-15 of values that may be 1e9.
    return nonzeros * itemsize + round(choices / math.log(2), 6) / 8


def size_bound(tensors: Iterable[FileTensor]) -> int:
    """Return what the constants of a file need: weights by the formula, others dense.

    Args:
        tensors: The constants of the file.

    Returns:
        The bound. It knows no names, operators or alignment, so that a file of
        few weights is far above it.
    """
    return math.ceil(
        sum(
            tensor_bound(tensor.nonzeros, tensor.values.size, tensor.itemsize)
            if tensor.is_weight
            else tensor.dense_bytes
            for tensor in tensors
        )
    )
