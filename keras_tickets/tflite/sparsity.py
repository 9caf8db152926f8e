"""TFLite's sparse tensor encoding: a walk down a tree, one level per dimension.

A tensor of shape (d0, d1, ...) is first cut into blocks, if there are any, and its
dimensions put into *traversal order*. Each dimension is then one level of a tree:
a DENSE level keeps all children of a node, a CSR level lists the children it keeps
(`segments` says where each node's list begins, `indices` names the children).
The values of the surviving leaves follow each other in the buffer.

`decode` and `encode` are exact inverses on the layout `Levels`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from keras_tickets._util.damage import check_claim
from keras_tickets._util.file_tensor import Array


@dataclasses.dataclass(frozen=True)
class Levels:
    """How a tensor becomes a tree, without its values.

    Args:
        shape: The tensor's dense shape.
        order: Traversal order; numbers from `len(shape)` on are block dimensions.
        block_map: For each block dimension, the dimension that it cuts.
        block_sizes: For each block dimension, the size of a block.
        compressed: For each level, whether it is CSR.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    block_map: tuple[int, ...]
    block_sizes: tuple[int, ...]
    compressed: tuple[bool, ...]

    @property
    def name(self) -> str:
        """The layout in a word: `"sparse"`, or `"sparse 1x4"` with its blocks."""
        if not self.block_sizes:
            return "sparse"
        sizes = dict(zip(self.block_map, self.block_sizes, strict=True))
        return "sparse " + "x".join(
            str(sizes.get(axis, 1)) for axis in range(len(self.shape))
        )

    @property
    def extents(self) -> tuple[int, ...]:
        """The number of children of a node, for each level."""
        sizes = list(self.shape)
        for dimension, block in zip(self.block_map, self.block_sizes, strict=True):
            sizes[dimension] //= block
        sizes += self.block_sizes
        return tuple(sizes[i] for i in self.order)


# What a CSR level stores: where each node's children begin, and which they are.
Index = tuple[Array, Array]


def decode(levels: Levels, indices: list[Index | None], values: Array) -> Array:
    """Put stored values back at their places.

    Args:
        levels: The layout.
        indices: For each level, its segments and indices; None if it is dense.
        values: The stored values.

    Returns:
        The dense tensor.

    Raises:
        ValueError: If the indices do not fit, or the tensor claims to be far larger
            than what is stored of it.

    Example: see `encode`.
    """
    stored = sum(part.nbytes for index in indices if index for part in index)
    check_claim(levels.extents, values.itemsize, stored + values.nbytes)
    places = np.zeros(1, np.int64)
    for extent, index in zip(levels.extents, indices, strict=True):
        if index is None:
            places = _all_children(places, extent)
        else:
            segments, children = (np.asarray(part, np.int64) for part in index)
            counts = np.diff(segments)
            if (counts < 0).any() or counts.sum() != children.size:
                raise ValueError("Segments of a sparse tensor do not fit its indices.")
            places = np.repeat(places, counts) * extent + children
    tree = np.zeros(math.prod(levels.extents), values.dtype)
    tree[places] = values
    return _to_tensor(levels, tree)


def encode(levels: Levels, tensor: Array) -> tuple[list[Index | None], Array]:
    """Store what is not zero.

    Args:
        levels: The layout.
        tensor: The dense tensor.

    Returns:
        The segments and indices of each level (None for dense ones), and the values.

    Example:

    ```python
    rows = Levels((2, 3), (0, 1), (), (), (False, True))
    indices, values = encode(rows, np.array([[0, 5, 0], [7, 0, 8]]))
    # values: [5, 7, 8]; indices[1]: segments [0, 1, 3], children [1, 0, 2]
    ```
    """
    tree = _to_tree(levels, tensor)
    places = np.zeros(1, np.int64)
    indices: list[Index | None] = []
    for level, compressed in enumerate(levels.compressed):
        children = _all_children(places, levels.extents[level])
        if not compressed:
            places = children
            indices.append(None)
            continue
        below = tuple(range(level + 1, tree.ndim))
        kept = (tree != 0).any(axis=below).reshape(-1)[children]
        counts = kept.reshape(len(places), levels.extents[level]).sum(axis=1)
        segments = np.concatenate([[0], np.cumsum(counts)])
        places = children[kept]
        indices.append((segments, places % levels.extents[level]))
    return indices, tree.reshape(-1)[places]


def _all_children(places: Array, extent: int) -> Array:
    return (places[:, None] * extent + np.arange(extent)).reshape(-1)


def _block_axes(levels: Levels) -> list[int]:
    """Return each dimension followed by the block dimensions that cut it."""
    rank = len(levels.shape)
    axes = []
    for dimension in range(rank):
        axes.append(dimension)
        axes += [rank + i for i, d in enumerate(levels.block_map) if d == dimension]
    return axes


def _to_tensor(levels: Levels, tree: Array) -> Array:
    tree = tree.reshape(levels.extents)
    natural = tree.transpose(np.argsort(levels.order))
    return natural.transpose(_block_axes(levels)).reshape(levels.shape)


def _to_tree(levels: Levels, tensor: Array) -> Array:
    axes = _block_axes(levels)
    natural_extents = [0] * len(levels.order)
    for extent, axis in zip(levels.extents, levels.order, strict=True):
        natural_extents[axis] = extent
    cut = tensor.reshape([natural_extents[axis] for axis in axes])
    return cut.transpose(np.argsort(axes)).transpose(levels.order)
