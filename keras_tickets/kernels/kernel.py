"""A weight variable of a layer, seen as the matrices of a product."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np


@dataclass(frozen=True)
class MatmulView:
    """A kernel seen as `taps` matrices of `inputs` x `outputs`.

    Each field holds axes of the kernel: the axes summed over (`inputs`), the axes
    that stay (`outputs`) and the positions of a convolution window (`taps`).
    """

    taps: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """All axes, in the order of the fields."""
        return (*self.taps, *self.inputs, *self.outputs)

    def unfold(self, array: np.ndarray) -> np.ndarray:
        """Return a kernel's values as taps x inputs x outputs.

        Example:
        >>> heads = MatmulView((), (0,), (1, 2))
        >>> heads.unfold(np.zeros((8, 2, 3))).shape
        (1, 8, 6)
        """
        shape = [
            math.prod(array.shape[axis] for axis in axes)
            for axes in (self.taps, self.inputs, self.outputs)
        ]
        return array.transpose(self.axes).reshape(shape)

    def fold(self, matrices: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return what `unfold` made of an array of `shape` in that shape again."""
        parts = matrices.reshape([shape[axis] for axis in self.axes])
        return parts.transpose(np.argsort(self.axes))


@dataclass(frozen=True, eq=False)
class Kernel:
    """A weight variable, the layer that owns it and a display path.

    Identity is the variable; `path` is made unique inside its model and is meant for
    people, filters and reports.
    """

    variable: keras.Variable
    layer: keras.Layer
    path: str
    trainable: bool = True
    rewritten: bool = field(default=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        """How many weights the variable holds."""
        return math.prod(self.shape)

    @cached_property
    def view(self) -> MatmulView:
        """The axes of the matrix products that this kernel takes part in."""
        if is_depthwise(self):  # each input has outputs of its own
            axes = tuple(range(len(self.shape)))
            return MatmulView(axes[:-2], (), axes[-2:])
        return matmul_view(self.layer, len(self.shape))

    def extent(self, axes: Sequence[int]) -> int:
        """Return the product of the sizes of `axes`."""
        return math.prod(self.shape[axis] for axis in axes)


def matmul_view(layer: keras.Layer, rank: int) -> MatmulView:
    """Return which axes of a `layer`'s kernel are taps, inputs and outputs."""
    axes = tuple(range(rank))
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, result = re.split(",|->", layer.equation)
        letters = kernel.replace("...", "")
        stays = tuple(axis for axis in axes if letters[axis] in result)
        summed = tuple(axis for axis in axes if letters[axis] not in result)
        return MatmulView((), summed, stays)
    if re.search(r"Conv\d?D?Transpose", type(layer).__name__):
        return MatmulView(axes[:-2], axes[-1:], axes[-2:-1])
    return MatmulView(axes[:-2], axes[-2:-1], axes[-1:])


def is_depthwise(kernel: Kernel) -> bool:
    """Return whether each input of a kernel has outputs of its own."""
    by_layer = type(kernel.layer).__name__.startswith("DepthwiseConv")
    return by_layer or kernel.variable.name == "depthwise_kernel"
