"""Layers that mix channels: dense ones and convolutions.

Such a layer makes new channels out of all of its input. It reads an input channel if a
weight from it to a kept output is not zero, unless the channel is constant: what a
constant adds to the outputs goes into the bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_tickets._util.layer_traits import same_padding
from keras_tickets.backend import numbers
from keras_tickets.channels.channel_state import Channels, only_finite, unknown
from keras_tickets.channels.coupling import Kept
from keras_tickets.channels.edits import Part


class Linear(Part):
    """A layer whose outputs are sums over its input channels."""

    def __init__(self, layer: Any, name: str, x: Channels, outs: np.ndarray) -> None:
        super().__init__(layer, name, x, outs)
        self.constants = x.constants
        self.pads = pads(layer, x.spec.shape)
        self.reads = reads(layer)

    def merge_call(self, x: Channels) -> None:
        """Fold only what is the same constant at each call."""
        same = self.constants == x.constants
        self.constants = np.where(same, self.constants, np.nan)
        self.pads = self.pads or pads(self.layer, x.spec.shape)

    def needs(self, kept: Kept) -> Iterator[tuple[np.ndarray, str]]:
        """Yield the channels that the kept outputs need, with the reason."""
        read = self.reads[:, kept[self.outs]].any(1)
        varies = np.isnan(self.constants)
        yield self.ins[read & varies], f"read by '{self.name}'"
        if self.pads:
            yield (
                self.ins[read & ~varies & (self.constants != 0)],
                f"a constant other than zero, which '{self.name}' pads with zeros",
            )

    def constant_outputs(self, x: Channels) -> np.ndarray:
        """Return the outputs before the activation, NaN where one is not constant."""
        folds = ~np.isnan(x.constants)
        if pads(self.layer, x.spec.shape):
            folds &= x.constants == 0
        reached = self.reads[~folds].any(0)
        values = self._bias() + self._share(np.where(folds, x.constants, 0))
        return only_finite(np.where(reached, np.nan, values))

    def config(self, kept: Kept) -> dict[str, Any]:
        """Return the number of kept outputs, and whether a bias is needed now."""
        changes: dict[str, Any] = {size_name(self.layer): int(kept[self.outs].sum())}
        if not self.layer.use_bias and self._folded(kept).any():
            changes["use_bias"] = True
        return changes

    def weights(self, kept: Kept) -> dict[str, np.ndarray]:
        """Return the kernels of what is kept, and the bias with what is folded."""
        found = cut(self.layer, kept[self.ins], kept[self.outs])
        folded = self._folded(kept)
        if self.layer.use_bias or folded.any():
            found["bias"] = (self._bias() + folded)[kept[self.outs]]
        return found

    def _folded(self, kept: Kept) -> np.ndarray:
        """Return what the removed channels add to each output; zero if not kept."""
        gone = ~kept[self.ins] & ~np.isnan(self.constants)
        return self._share(np.where(gone, self.constants, 0)) * kept[self.outs]

    def _share(self, values: np.ndarray) -> np.ndarray:
        """Return what constant channels, zero if absent, add to each output."""
        some = np.flatnonzero(values)
        return values[some] @ sums(self.layer, some) if len(some) else np.zeros(1)

    def _bias(self) -> np.ndarray:
        if self.layer.use_bias:
            return numbers(self.layer.bias).astype("float64")
        return np.zeros(len(self.outs))


# -- kernels, whatever their layout -------------------------------------------------


def size_name(layer: Any) -> str:
    """Return what the config calls the number of outputs."""
    return "units" if type(layer).__name__ == "Dense" else "filters"


def reads(layer: Any) -> np.ndarray:
    """Return for (input, output) whether a weight leads from one to the other."""
    if _separable(layer):
        depth = np.any(_flat(numbers(layer.depthwise_kernel)), axis=0)
        point = np.any(_flat(numbers(layer.pointwise_kernel)), axis=0)
        return (depth.reshape(-1, 1) & point).reshape(*depth.shape, -1).any(1)
    found = np.any(_flat(numbers(layer.kernel)), axis=0)
    return found.T if _transposed(layer) else found


def sums(layer: Any, rows: np.ndarray) -> np.ndarray:
    """Return for (some inputs, output) the sum of the weights between the two."""
    if _separable(layer):
        depth = _flat(numbers(layer.depthwise_kernel)).sum(0, dtype="float64")
        point = _flat(numbers(layer.pointwise_kernel)).sum(0, dtype="float64")
        found = (depth.reshape(-1, 1) * point).reshape(*depth.shape, -1).sum(1)
        return found[rows]
    kernel = numbers(layer.kernel)
    if _transposed(layer):
        return _flat(kernel[..., rows]).sum(0, dtype="float64").T
    return _flat(kernel[..., rows, :]).sum(0, dtype="float64")


def cut(layer: Any, ins: np.ndarray, outs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the kernels between the inputs and outputs that two masks keep."""
    if _separable(layer):
        depth = numbers(layer.depthwise_kernel)[..., ins, :]
        each = np.repeat(ins, depth.shape[-1])
        point = numbers(layer.pointwise_kernel)[..., each, :][..., outs]
        return {"depthwise_kernel": depth, "pointwise_kernel": point}
    first, second = (outs, ins) if _transposed(layer) else (ins, outs)
    return {"kernel": numbers(layer.kernel)[..., first, :][..., second]}


def _separable(layer: Any) -> bool:
    return type(layer).__name__.startswith("Separable")


def _transposed(layer: Any) -> bool:
    return type(layer).__name__.endswith("Transpose")


def _flat(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel with all of its taps along one axis."""
    return kernel.reshape(-1, *kernel.shape[-2:])


# -- padding ------------------------------------------------------------------------


def pads(layer: Any, shape: Sequence[int | None]) -> bool:
    """Return whether a layer sees zeros beyond the border of an input."""
    if not re.search("Conv", type(layer).__name__):
        return False
    if _transposed(layer):
        return True  # its border gets fewer products than its middle
    if layer.padding == "valid":
        return False
    geometry = zip(
        shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    )
    return any(_padding(layer.padding, *axis) > 0 for axis in geometry)


def _padding(
    padding: str, size: int | None, kernel: int, stride: int, dilation: int
) -> int:
    """Return how many zeros are added along one axis, at most."""
    reach = (kernel - 1) * dilation
    if padding == "causal" or size is None:
        return reach
    return sum(same_padding(size, reach + 1, stride))


def depthwise_constants(layer: Any, x: Channels) -> np.ndarray:
    """Return the outputs of a depthwise convolution that are constant."""
    kernel = _flat(numbers(layer.kernel))
    empty = ~(kernel != 0).any(0)
    given = np.repeat(x.constants, kernel.shape[-1])
    if pads(layer, x.spec.shape):
        given = np.where(given == 0, 0, np.nan)
    given = np.where(empty.ravel(), 0, given)
    bias = numbers(layer.bias) if layer.use_bias else 0
    return only_finite(given * kernel.sum(0, dtype="float64").ravel() + bias)


def none_constant(layer: Any) -> np.ndarray:
    """Return the constants of a layer whose outputs are read as a whole."""
    return unknown(getattr(layer, size_name(layer)))
