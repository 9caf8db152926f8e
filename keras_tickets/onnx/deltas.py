"""A sparse array as deltas and entries: one small integer for each value that is kept.

    values   0 0 5 0 7   ->   deltas 2 2, entries 5 7

A running sum of the deltas gives the positions. They are `uint8` or `uint16`; a longer
way is walked in several steps, whose entries are zero.
"""

from __future__ import annotations

import numpy as np

from keras_tickets._util.file_tensor import Array

_DELTA_TYPES = (np.uint8, np.uint16)


def pack(values: Array) -> tuple[Array, Array]:
    """Pack an array; `unpack` gives back its values.

    A negative zero is a zero: converters make many, where they fold a negative scale
    into a kernel.

    Args:
        values: The array, of any shape; not empty.

    Returns:
        The deltas, and as many entries of the dtype of `values`.

    Example:
    >>> deltas, entries = pack(np.array([0, 0, 5, 0, 7], "float32"))
    >>> deltas.tolist(), entries.tolist()
    ([2, 2], [5.0, 7.0])
    """
    flat = values.reshape(-1)
    kept = np.flatnonzero(flat)
    if not kept.size:
        # Runtimes differ on the sum of nothing: a zero is kept as an entry.
        kept = np.zeros(1, np.int64)
    steps = np.diff(kept, prepend=0)
    packed = [_walk(steps, flat[kept], dtype) for dtype in _DELTA_TYPES]
    return min(packed, key=lambda arrays: sum(array.nbytes for array in arrays))


def unpack(deltas: Array, entries: Array, size: int) -> Array:
    """Unpack what `pack` made into a flat array.

    Args:
        deltas: The deltas.
        entries: The entries.
        size: How many values the array has.

    Returns:
        The values, in the dtype of the entries.

    Raises:
        ValueError: If an entry lies outside the array.

    Example:
    >>> unpack(np.array([2, 2]), np.array([5.0, 7.0]), 5).tolist()
    [0.0, 0.0, 5.0, 0.0, 7.0]
    """
    positions = np.cumsum(deltas, dtype=np.int64)
    if positions.shape != entries.shape or (positions.size and positions[-1] >= size):
        raise ValueError(
            f"{deltas.size} deltas, which add up to {int(deltas.sum())}, do not place "
            f"{entries.size} entries in an array of {size}."
        )
    flat = np.zeros(size, entries.dtype)
    flat[positions] = entries
    return flat


def _walk(steps: Array, entries: Array, dtype: type) -> tuple[Array, Array]:
    """Break the steps that `dtype` cannot hold; what lies between is zero."""
    longest = np.iinfo(dtype).max
    # Even a full step is not broken: the rest of a broken one must not be zero.
    breaks = np.maximum(steps - 1, 0) // longest
    ends = np.cumsum(breaks + 1) - 1
    deltas = np.full(ends[-1] + 1, longest, dtype)
    deltas[ends] = steps - breaks * longest
    padded = np.zeros(deltas.shape, entries.dtype)
    padded[ends] = entries
    return deltas, padded
