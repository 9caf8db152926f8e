"""The parts of a network that change when channels go: layers with weights or sizes.

A part knows the channels that come in and go out, and says for any choice of kept ones
what becomes of the layer's config and weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets.backend import numbers
from keras_tickets.channels.channel_state import Channels
from keras_tickets.channels.coupling import Kept


class Part:
    """A layer and the channels of its input and output.

    Args:
        layer: The layer.
        name: How the user finds it: nested models in front, with slashes.
        x: Its input, at the first call.
        outs: The channels of its output.
    """

    def __init__(self, layer: Any, name: str, x: Channels, outs: np.ndarray) -> None:
        self.layer = layer
        self.name = name
        self.ins = x.ids
        self.outs = outs

    def merge_call(self, x: Channels) -> None:
        """Take note of another call of a shared layer."""

    def config(self, kept: Kept) -> dict[str, Any]:
        """Return what changes in the config of the layer."""
        return {}

    def weights(self, kept: Kept) -> dict[str, np.ndarray]:
        """Return the new values of all weights, by attribute of the layer."""
        return {}


class Scaled(Part):
    """One value for each channel, along the last axis: BatchNorm, PReLU."""

    attributes: tuple[str, ...] = ()

    def weights(self, kept: Kept) -> dict[str, np.ndarray]:
        """Return the values of the kept channels."""
        variables = {name: getattr(self.layer, name) for name in self.attributes}
        return {
            name: numbers(variable)[..., kept[self.ins]]
            for name, variable in variables.items()
            if variable is not None
        }


class Norm(Scaled):
    """A BatchNormalization."""

    attributes = ("gamma", "beta", "moving_mean", "moving_variance")


class Slope(Scaled):
    """A PReLU."""

    attributes = ("alpha",)


class Depthwise(Part):
    """A depthwise convolution: filters follow the input channels."""

    def weights(self, kept: Kept) -> dict[str, np.ndarray]:
        """Return the filters of the kept input channels."""
        found = {"kernel": numbers(self.layer.kernel)[..., kept[self.ins], :]}
        if self.layer.use_bias:
            found["bias"] = numbers(self.layer.bias)[kept[self.outs]]
        return found


class Shape(Part):
    """A Reshape whose last axis holds channels."""

    def config(self, kept: Kept) -> dict[str, Any]:
        """Return the target shape for the kept channels."""
        *others, last = self.layer.target_shape
        count = int(kept[self.outs].sum())
        return {"target_shape": [*others, last if last == -1 else count]}


class NestedInput(Part):
    """The input of a nested model."""

    def config(self, kept: Kept) -> dict[str, Any]:
        """Return the input shape for the kept channels."""
        *others, last = self.layer.batch_shape
        count = int(kept[self.ins].sum())
        return {"batch_shape": [*others, None if last is None else count]}
