"""What each kind of layer does to the channels that it is given.

A rule is a function `rule(trace, layer, *args)` that takes `Channels` where the layer
takes tensors and returns what comes out. It raises `LeftAlone` for a layer that cannot
lose a channel.

| layer | its output channels |
|---|---|
| Dense, Conv, Conv transposed, SeparableConv | new ones |
| activations | the same; constants are activated |
| BatchNormalization, PReLU | the same; weights follow |
| DepthwiseConv | the same, as often as the depth multiplier says |
| pooling, dropout, noise, cropping, upsampling | the same |
| ZeroPadding | the same; a constant stays one only if it is zero |
| Flatten, Reshape | the same at each position, in the new order |
| Concatenate | those of all, one after the other |
| Add, Subtract, Multiply, Average, Maximum, Minimum | the same in all, coupled |
| everything else | left alone, with all it reads |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets._util.layer_traits import ELEMENTWISE, IDENTITY
from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone, is_of_keras, weights_beside
from keras_tickets.channels.channel_state import (
    Channels,
    apply,
    only_finite,
    tensors_in,
)
from keras_tickets.channels.edits import Depthwise, Norm, Shape, Slope
from keras_tickets.channels.mixing_layers import (
    Linear,
    depthwise_constants,
    none_constant,
)
from keras_tickets.channels.tracing import Trace

Rule = Callable[..., Channels]

RULES: dict[str, Rule] = {}

REASONS = (
    (r"RNN|LSTM|GRU|Bidirectional", "is recurrent"),
    (r"Attention", "attends"),
    (r"Embedding", "looks its vectors up in a table"),
    (r"Normalization", "normalizes over several channels"),
    (r"Softmax|Sparsemax|Glu", "computes each channel from several"),
    (r"Lambda", "is a function that cannot be looked into"),
)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorate a function as the rule of classes of Keras, by their names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def _of_each_rank(*names: str) -> list[str]:
    """Return the names of the layers of one, two and three dimensions."""
    return [f"{name}{rank}D" for name in names for rank in (1, 2, 3)]


def find(operation: Any) -> Rule:
    """Return the rule of a layer or operation of Keras.

    Raises:
        LeftAlone: If there is none.
    """
    cls = type(operation)
    if not is_of_keras(cls):
        raise LeftAlone(f"is a class of its own, {cls.__name__}")
    if cls.__name__ in RULES:
        return RULES[cls.__name__]
    reasons = (why for pattern, why in REASONS if re.search(pattern, cls.__name__))
    raise LeftAlone(next(reasons, f"has no rule for {cls.__name__}"))


# -- new channels -------------------------------------------------------------------


@rule(
    *("Dense", *_of_each_rank("Conv")),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
)
def linear(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Make new channels, constant where only constants lead to one."""
    if getattr(layer, "groups", 1) > 1:
        raise LeftAlone(f"has {layer.groups} groups")
    _check_plain(layer)
    part = trace.part(Linear, layer, x, len(none_constant(layer)))
    if is_elementwise(layer.activation):
        constants = apply(layer.activation, part.constant_outputs(x))
    else:
        name = getattr(layer.activation, "__name__", "activation")
        trace.coupling.keep(
            part.outs, f"read as a whole by the {name} of '{part.name}'"
        )
        constants = none_constant(layer)
    return trace.output(layer, x, ids=part.outs, constants=constants)


def _check_plain(layer: Any) -> None:
    if reason := weights_beside(layer):
        raise LeftAlone(reason)


# -- the same channels --------------------------------------------------------------

NOT_ELEMENTWISE = {"softmax", "log_softmax", "sparsemax", "glu"}


def is_elementwise(activation: Any) -> bool:
    """Return whether an activation is one of Keras' that see each number alone."""
    name = getattr(activation, "__name__", "")
    own = getattr(keras.activations, name, None) is activation
    return own and name not in NOT_ELEMENTWISE


@rule("Activation")
def activation(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Activate constants."""
    if not is_elementwise(layer.activation):
        name = getattr(layer.activation, "__name__", layer.activation)
        raise LeftAlone(f"computes {name}, which is not known to be elementwise")
    return elementwise(trace, layer, x)


@rule(*ELEMENTWISE, "Square")
def elementwise(trace: Trace, operation: Any, x: Channels) -> Channels:
    """Activate constants."""
    constants = apply(operation.call, x.constants)
    return trace.output(operation, x, ids=x.ids, constants=constants)


@rule("Rescaling")
def rescaling(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Scale constants, by numbers; a list has one for each channel."""
    if not all(isinstance(n, int | float) for n in (layer.scale, layer.offset)):
        raise LeftAlone("scales each channel by a number of its own")
    constants = only_finite(x.constants * layer.scale + layer.offset)
    return trace.output(layer, x, ids=x.ids, constants=constants)


@rule(
    *(*IDENTITY, "RepeatVector"),
    *_of_each_rank("MaxPooling", "AveragePooling"),
    *_of_each_rank("GlobalMaxPooling", "GlobalAveragePooling"),
    *_of_each_rank("UpSampling", "Cropping"),
)
def same(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Leave channels and constants as they are."""
    return trace.output(layer, x, ids=x.ids, constants=x.constants)


@rule(*_of_each_rank("ZeroPadding"))
def zero_padding(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Leave a constant only where it is the zero that is padded with."""
    constants = np.where(x.constants == 0, 0, np.nan)
    return trace.output(layer, x, ids=x.ids, constants=constants)


@rule("BatchNormalization")
def batch_normalization(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Shift and scale constants; what is scaled by zero becomes its shift."""
    if layer.axis % len(x.spec.shape) != len(x.spec.shape) - 1:
        raise LeftAlone(f"normalizes along axis {layer.axis}, not the last one")
    trace.part(Norm, layer, x, x.ids)
    gamma = numbers(layer.gamma) if layer.scale else np.ones(len(x))
    scale = gamma / np.sqrt(numbers(layer.moving_variance) + layer.epsilon)
    moved = (x.constants - numbers(layer.moving_mean)) * scale
    shift = numbers(layer.beta) if layer.center else 0
    constants = only_finite(np.where(gamma == 0, 0, moved) + shift)
    return trace.output(layer, x, ids=x.ids, constants=constants)


@rule("PReLU")
def prelu(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Scale negative constants, if the slope is the same at all positions."""
    alpha = numbers(layer.alpha)
    if alpha.shape[-1] == len(x):
        trace.part(Slope, layer, x, x.ids)
    slopes = alpha.reshape(-1, alpha.shape[-1])
    slope = np.where((slopes == slopes[0]).all(0), slopes[0], np.nan)
    constants = np.where(x.constants >= 0, x.constants, slope * x.constants)
    return trace.output(layer, x, ids=x.ids, constants=only_finite(constants))


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Filter each channel alone, perhaps several times."""
    _check_plain(layer)
    if not is_elementwise(layer.activation):
        raise LeftAlone("has an activation that is not known to be elementwise")
    ids = np.repeat(x.ids, layer.depth_multiplier)
    trace.part(Depthwise, layer, x, ids)
    constants = apply(layer.activation, depthwise_constants(layer, x))
    return trace.output(layer, x, ids=ids, constants=constants)


# -- other shapes -------------------------------------------------------------------


@rule("Flatten", "Reshape")
def reshape(trace: Trace, layer: Any, x: Channels) -> Channels:
    """Carry the channel of each number along; every row must have the same ones."""
    ids, constants = _last_axis(layer, x)
    if type(layer).__name__ == "Reshape":
        trace.part(Shape, layer, x, ids)
    return trace.output(layer, x, ids=ids, constants=constants)


def _last_axis(layer: Any, x: Channels) -> tuple[np.ndarray, np.ndarray]:
    """Return the channels and constants along the last axis of a reshaped tensor."""
    old, new = x.spec.shape[1:], layer.compute_output_spec(x.spec).shape[1:]
    if old[-1] == new[-1]:
        return x.ids, x.constants
    if None in (*old, *new):
        raise LeftAlone(f"reshapes {old} to {new}: not every size is known")
    rows = math.prod(old[:-1])
    ids = np.tile(x.ids, rows).reshape(-1, new[-1])
    if (ids != ids[0]).any():
        raise LeftAlone(f"reshapes {old} to {new}, which mixes channels and positions")
    constants = np.tile(x.constants, rows).reshape(-1, new[-1])
    uniform = (constants == constants[0]).all(0)
    return ids[0], np.where(uniform, constants[0], np.nan)


# -- where branches meet ------------------------------------------------------------


@rule("Concatenate")
def concatenate(trace: Trace, layer: Any, *args: Any) -> Channels:
    """Put the channels one after the other, or couple them along another axis."""
    branches = _branches(args)
    rank = len(branches[0].spec.shape)
    if layer.axis % rank != rank - 1:
        return _coupled(trace, layer, args, branches, _equal)
    ids = np.concatenate([branch.ids for branch in branches])
    constants = np.concatenate([branch.constants for branch in branches])
    return trace.output(layer, *args, ids=ids, constants=constants)


def _equal(constants: list[Any]) -> np.ndarray:
    first = constants[0]
    return np.where(np.all([c == first for c in constants], axis=0), first, np.nan)


def _product(constants: list[Any]) -> np.ndarray:
    total = np.ones(1)
    zero = np.zeros(1, bool)
    for constant in constants:
        total, zero = total * constant, zero | (constant == 0)
    return np.where(zero, 0, total)  # zero times what is not known is zero


COMBINE: dict[str, Callable[[list[Any]], Any]] = {
    "Add": lambda c: sum(c[1:], start=c[0]),
    "Subtract": lambda c: c[0] - c[1],
    "Average": lambda c: sum(c[1:], start=c[0]) / len(c),
    "Maximum": lambda c: np.max(np.broadcast_arrays(*c), axis=0),
    "Minimum": lambda c: np.min(np.broadcast_arrays(*c), axis=0),
    "Multiply": _product,
    "Divide": lambda c: c[0] / c[1],
    "TrueDivide": lambda c: c[0] / c[1],
}
"""What becomes of constants; NaN, the unknown, stays NaN."""


@rule(*COMBINE)
def combine(trace: Trace, layer: Any, *args: Any) -> Channels:
    """Couple the channels of all branches; numbers may stand among them."""
    branches = _branches(args)
    return _coupled(trace, layer, args, branches, COMBINE[type(layer).__name__])


def _branches(args: Any) -> list[Channels]:
    """Return the tensors among arguments of which the rest are numbers."""
    flat = tree.flatten(args)
    if not all(isinstance(x, Channels | int | float) for x in flat):
        raise LeftAlone("is given constants with several values")
    return tensors_in(args)


def _coupled(
    trace: Trace,
    layer: Any,
    args: Any,
    branches: list[Channels],
    function: Callable[[list[Any]], Any],
) -> Channels:
    """Return one tensor whose channels are those of every branch at once."""
    wide = max(branches, key=len)
    # A branch of one channel, broadcast over the others, cannot lose its last one.
    equal = [branch.ids for branch in branches if len(branch) == len(wide)]
    trace.coupling.couple(equal, by=f"'{trace.name(layer)}'")
    values = [
        x.constants if isinstance(x, Channels) else float(x) for x in tree.flatten(args)
    ]
    with np.errstate(all="ignore"):
        constants = only_finite(np.broadcast_to(function(values), len(wide)))
    return trace.output(layer, *args, ids=wide.ids, constants=constants)
