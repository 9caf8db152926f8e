"""Strided and odd kernels, padded and sized as XNNPACK has them.

With channels first XNNPACK has depthwise convolutions of 3x3 and 5x5 that are padded by
half of their size at each side, and one way in: a 3x3 convolution of stride 2 with
three inputs, padded by one. A smaller kernel is a larger one with zeros around it. So
any padding has an exact form if the kernel, moved by what the padding differs, fits
into a kernel that exists, and the outputs are as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_tickets._util.layer_traits import same_padding
from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.match import (
    Match,
    copy_with,
    is_image,
    last_channels,
)
from keras_tickets.mobile.preparing.network_graph import Node, Value


@dataclass(frozen=True)
class Axis:
    """How a convolution runs along one axis.

    Args:
        size: Of the image, without padding; None if it is not known.
        kernel: Size of the kernel, its holes included.
        stride: Pixels from one output to the next.
        before: Zeros in front of the image.
        after: Zeros behind it.
    """

    size: int | None
    kernel: int
    stride: int
    before: int
    after: int

    def offset(self, kernel: int) -> int | None:
        """Return where the kernel stands in a larger, centered one; None if nowhere."""
        offset = kernel // 2 - self.before
        fits = 0 <= offset <= kernel - self.kernel
        return offset if fits and self._same_outputs() else None

    def _same_outputs(self) -> bool:
        spare = self.before + self.after - self.kernel
        if self.stride == 1:
            return spare == -1
        if self.size is None:
            return False
        outputs = (self.size + spare) // self.stride + 1
        return outputs == (self.size - 1) // self.stride + 1


def exact(match: Match) -> list[Value] | None:
    """Pad at both sides alike, with the kernel where it reads the same pixels."""
    if (sizes := kernels(match)) is None:
        return None
    source, axes = geometry(match.node)
    if stands(match, sizes, axes):
        return None
    match.require_exclusive()
    if (size := _exact_size(sizes, axes)) is None:
        raise LeftAlone(_why(sizes, axes))
    _write(match, source, size, [axis.offset(size) for axis in axes])
    return [match.node.output]


def own_size(match: Match) -> list[Value] | None:
    """Read other pixels where the exact form has a larger kernel: it takes longer."""
    if (sizes := kernels(match)) is None:
        return None
    _, axes = geometry(match.node)
    exact, least = _exact_size(sizes, axes), _least_size(sizes, axes)
    return shifted(match) if exact and least and exact > least else None


def shifted(match: Match) -> list[Value] | None:
    """Pad at both sides alike, and read other pixels: at most half a kernel away."""
    if (sizes := kernels(match)) is None:
        return None
    source, axes = geometry(match.node)
    size = _least_size(sizes, axes)
    if stands(match, sizes, axes) or size is None:
        return None
    match.require_exclusive()
    _write(match, source, size, [(size - axis.kernel) // 2 for axis in axes])
    return [match.node.output]


def _exact_size(sizes: tuple[int, ...], axes: list[Axis]) -> int | None:
    return next(
        (s for s in sizes if None not in (axis.offset(s) for axis in axes)), None
    )


def _least_size(sizes: tuple[int, ...], axes: list[Axis]) -> int | None:
    return next((s for s in sizes if s >= max(axis.kernel for axis in axes)), None)


def kernels(match: Match) -> tuple[int, ...] | None:
    """Return the sizes that XNNPACK has for a node; None if it is of no such kind."""
    layer, node = match.node.layer, match.node
    if node.kind not in ("Conv2D", "DepthwiseConv2D") or not last_channels(layer):
        return None
    if not is_image(node.input):
        return None
    if node.kind == "DepthwiseConv2D":
        right = layer.depth_multiplier == 1 and layer.strides in ((1, 1), (2, 2))
        return (3, 5) if right and match.behind else None
    return (3,) if is_entry(match) else None


def is_entry(match: Match) -> bool:
    """Return whether a node is a stem that can become XNNPACK's way in."""
    layer = match.node.layer
    return (
        match.node.kind == "Conv2D"
        and not match.behind
        and match.node.input.shape[-1] == 3
        and layer.strides == (2, 2)
        and layer.groups == 1
        and max(layer.kernel_size) in (2, 3)
        and max(layer.dilation_rate) == 1
    )


def geometry(node: Node) -> tuple[Value, list[Axis]]:
    """Return what a convolution reads below its padding, and how it runs over it."""
    layer, source = node.layer, node.input
    pads: Any = [(0, 0)] * 2
    before: Any = source.node
    padded = before is not None and before.kind == "ZeroPadding2D"
    if layer.padding == "valid" and padded and last_channels(before.layer):
        pads, source = before.layer.padding, before.input
    axes = []
    for i, size in enumerate(source.shape[1:3]):
        kernel = (layer.kernel_size[i] - 1) * layer.dilation_rate[i] + 1
        stride = layer.strides[i]
        pad = _same(size, kernel, stride) if layer.padding == "same" else pads[i]
        axes.append(Axis(size, kernel, stride, *pad))
    return source, axes


_NO_SIZE = (
    "pads an image whose size is not known: build the model with an input of the size "
    "that it will have"
)


def _same(size: int | None, kernel: int, stride: int) -> tuple[int, int]:
    if stride > 1 and size is None:
        raise LeftAlone(_NO_SIZE)
    return same_padding(size or kernel, kernel, stride)


def stands(match: Match, sizes: tuple[int, ...], axes: list[Axis]) -> bool:
    """Return whether XNNPACK takes a convolution as it is."""
    layer, before = match.node.layer, match.node.input.node
    size = layer.kernel_size[0]
    centered = all(axis.before == axis.after == size // 2 for axis in axes)
    square = set(layer.kernel_size) == {size} and set(layer.dilation_rate) == {1}
    if not (centered and square and size in sizes):
        return False
    return layer.strides == (1, 1) or (
        layer.padding == "valid"
        and before is not None
        and match.graph.next(before) is match.node
    )


def _write(match: Match, source: Value, size: int, offsets: list[Any]) -> None:
    """Let a node read a padded source with a kernel of this size."""
    graph, node, layer = match.graph, match.node, match.node.layer
    weights = {"kernel": placed(numbers(layer.kernel), layer, size, offsets)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    name = graph.name(f"{layer.name}_pad")
    pad = keras.layers.ZeroPadding2D(size // 2, name=name, dtype=layer.dtype_policy)
    config = {"kernel_size": [size] * 2, "dilation_rate": [1, 1], "padding": "valid"}
    padded = graph.put(node, pad, source)
    graph.change(node, copy_with(layer, padded.shape, weights, **config), padded)
    graph.drop_unread()


def placed(kernel: np.ndarray, layer: Any, size: int, offsets: list[int]) -> np.ndarray:
    """Return a kernel with its taps at their places in a larger one of zeros."""
    large = np.zeros((size, size, *kernel.shape[2:]), kernel.dtype)
    rows, columns = (
        slice(offset, offset + (taps - 1) * step + 1, step)
        for offset, taps, step in zip(
            offsets, kernel.shape[:2], layer.dilation_rate, strict=True
        )
    )
    large[rows, columns] = kernel
    return large


def _why(sizes: tuple[int, ...], axes: list[Axis]) -> str:
    axis = next(axis for axis in axes if all(axis.offset(s) is None for s in sizes))
    has = " and ".join(f"{size}x{size}" for size in sizes)
    text = f"has a kernel of {axis.kernel}; XNNPACK has {has} here"
    if axis.kernel > max(sizes):
        return text
    if axis.size is None:
        return _NO_SIZE
    return (
        f"pads {axis.size} pixels by {axis.before} and {axis.after}, and XNNPACK by "
        "half of its kernel at both sides: no exact form at this size. Another input "
        "size may have one; inexact=True moves the pixels that it reads"
    )
