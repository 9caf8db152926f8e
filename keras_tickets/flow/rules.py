"""What each kind of layer is to the linearized network.

A rule is a function `rule(network, layer, *args, **kwargs)` that takes signals where
the layer takes tensors and returns signals. Kernels and other weights have their
absolute values, biases are zero: whatever a layer reads from its variables is so.

The rules in one table:

| layer | linearized |
|---|---|
| activations, dropout, noise | identity |
| normalization, LayerScale | a positive scale per channel, whatever the statistics |
| Rescaling, Normalization | their slope |
| Add, Subtract, Maximum, Minimum | the sum |
| Average, Concatenate | as they are |
| Multiply, gates, attention | the n-th root of a product of n signals |
| Embedding | the mean of its rows: every token alike |
| convolution, dense, pooling, reshaping, ... | as they are, without activation |
| recurrent | refused |

A product of n signals grows with the n-th power of the input and would count each path
n times. Its n-th root is homogeneous of degree one again, so the flow is conserved:
the factors share it equally.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
from keras import ops, tree

from keras_tickets._util.layer_traits import ELEMENTWISE, IDENTITY, POSITIVE_AT_ZERO
from keras_tickets.backend import keras_private
from keras_tickets.flow.signal import Signal, align, pass_layer, rescale, root


class Linearized(Protocol):
    """What a rule asks of the network, a `flow.Network`."""

    strict: bool
    """Whether a product of signals is zero as soon as one factor is."""

    def run(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what a layer, model or operation makes of signals."""


Rule = Callable[..., Any]

RULES: dict[str | type, Rule] = {}


class NotLinearError(ValueError):
    """A layer that has no rule and is not linear as it is."""


def rule(*layers: str | type) -> Callable[[Rule], Rule]:
    """Decorate a function as the rule of layer classes.

    Name a class of Keras by its name, one of your own by the class.

    Example:
    >>> import keras
    >>> from keras_tickets import flow
    >>> class Squared(keras.layers.Layer):
    ...     def call(self, x):
    ...         return x * abs(x)
    >>> @flow.rule(Squared)
    ... def identity(network, layer, x):
    ...     return x
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(layers, function))
        return function

    return register


def find(operation: Any) -> Rule | None:
    """Return the rule of a layer or operation, by its nearest class that has one."""
    for cls in type(operation).__mro__:
        if cls in RULES:
            return RULES[cls]
        if cls.__module__.startswith("keras.") and cls.__name__ in RULES:
            return RULES[cls.__name__]
    return None


def signals_in(*structure: Any) -> list[Signal]:
    """Return the signals in a nest of arguments."""
    return [x for x in tree.flatten(structure) if isinstance(x, Signal)]


# -- activations -------------------------------------------------------------------


ACTIVATIONS = (
    *(name for name in ELEMENTWISE if name not in POSITIVE_AT_ZERO),
    *("Activation", "PReLU", "UnitNormalization", "TanhShrink", "SoftShrink"),
    *("HardShrink", "Threshold", "Clip", "Cast", "StopGradient", "Sparsemax"),
)


@rule(*IDENTITY, "StochasticDepth", *ACTIVATIONS)
def identity(
    network: Linearized, layer: Any, x: Signal, *args: Any, **kwargs: Any
) -> Any:
    """Pass the signal through."""
    return x.of(x.value, always=x.always or _nonzero_at_zero(layer))


def _nonzero_at_zero(layer: Any) -> bool:
    """Return whether the activation of a layer is positive at zero."""
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name in ("sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential")


@rule(*POSITIVE_AT_ZERO, "Softmax")
def always_positive(
    network: Linearized, layer: Any, x: Signal, *args: Any, **kwargs: Any
) -> Signal:
    """Pass the signal through; the real output is positive without any input."""
    return x.of(x.value, always=True)


# -- positive scales ---------------------------------------------------------------


@rule("BatchNormalization")
def batch_normalization(
    network: Linearized, layer: Any, x: Signal, *args: Any, **kwargs: Any
) -> Signal:
    """Return `x |gamma| / sqrt(var + eps)`, whatever the mean and the shift."""
    scale = ops.rsqrt(ops.abs(layer.moving_variance.value) + layer.epsilon)
    return x.of(x.value * _along(x, layer.axis, scale * _gain(layer.gamma, scale)))


@rule("LayerNormalization", "GroupNormalization", "RMSNormalization")
def normalization(
    network: Linearized, layer: Any, x: Signal, *args: Any, **kwargs: Any
) -> Signal:
    """Return `x |gamma|`, without what a layer computes from the signal itself."""
    gain = layer.scale if isinstance(layer.scale, keras.Variable) else layer.gamma
    if gain is None:
        return x
    return x.of(x.value * _along(x, layer.axis, _gain(gain, gain.value)))


def _gain(gamma: Any, like: Any) -> Any:
    """Return `|gamma|`, or one where it was initialized to zero as a whole."""
    if gamma is None:
        return ops.ones_like(like)
    gain = ops.abs(gamma.value)
    return ops.where(ops.max(gain) > 0, gain, 1)


def _along(x: Signal, axes: Any, scale: Any) -> Any:
    """Return `scale` shaped to be multiplied along `axes` of the signal."""
    rank = len(x.value.shape)
    axes = [
        axis % rank for axis in (axes if isinstance(axes, list | tuple) else [axes])
    ]
    shape = [x.value.shape[i] if i in axes else 1 for i in range(rank)]
    return ops.cast(ops.reshape(scale, shape), x.value.dtype)


@rule("LayerScale")
def layer_scale(network: Linearized, layer: Any, x: Signal) -> Signal:
    """Pass through: the 1e-6 that it begins with would silence every block."""
    return x


@rule("Rescaling", "Normalization")
def slope(network: Linearized, layer: Any, x: Signal) -> Signal:
    """Return `x |f(1) - f(0)|` for an affine f."""
    ones = ops.ones_like(x.value)
    steep = ops.abs(layer.call(ones) - layer.call(ones * 0))
    return rescale(x.of(x.value * ops.cast(steep, x.value.dtype)))


# -- where branches meet -----------------------------------------------------------


@rule("Add", "Subtract", "Average", "Maximum", "Minimum")
def add(network: Linearized, layer: Any, *args: Any, **kwargs: Any) -> Signal:
    """Return the sum of all branches, at one exponent; constants are left out."""
    flat = tree.flatten(args)
    branches = signals_in(flat)
    if len(branches) == 1:
        (x,) = branches
        nonzero_at_zero = any(
            isinstance(c, int | float) and c > 0 for c in flat
        )  # as x + 3
        return x.of(x.value, always=x.always or nonzero_at_zero)
    values, exponent = align(branches)
    # The largest of several, and their sum with other signs, count as their sum.
    total = sum(values[1:], start=values[0])
    if type(layer).__name__ == "Average":
        total = total / len(values)
    always = any(branch.always for branch in branches)
    return rescale(Signal(total, exponent, always))


@rule("Concatenate", "Stack", "Hstack", "Vstack", "Dstack")
def concatenate(network: Linearized, layer: Any, *args: Any, **kwargs: Any) -> Signal:
    """Join all branches at one exponent."""
    branches = signals_in(args)
    values, exponent = align(branches)
    always = any(branch.always for branch in branches)
    return rescale(Signal(layer.call(values), exponent, always))


@rule("Multiply", "Divide", "TrueDivide")
def multiply(network: Linearized, layer: Any, *args: Any, **kwargs: Any) -> Signal:
    """Return `(x1 ... xn)^(1/n)`; a constant factor has its absolute value."""
    flat = tree.flatten(args)
    branches = signals_in(flat)
    if len(branches) == 1:
        (x,) = branches
        constants = [x.value if c is x else ops.abs(_value(c)) for c in flat]
        return rescale(x.of(layer.call(*constants)))
    return product(network, branches)


def product(network: Linearized, factors: list[Signal]) -> Signal:
    """Return the geometric mean of signals."""
    if not network.strict:
        # A gate that is never zero cannot cut what it scales.
        factors = [f for f in factors if not f.always] or factors
    total = factors[0]
    for factor in factors[1:]:
        total = Signal(total.value * factor.value, total.exponent + factor.exponent)
    return rescale(root(rescale(total), len(factors)))


@rule("Glu")
def gated_linear_unit(network: Linearized, layer: Any, x: Signal) -> Signal:
    """Return the geometric mean of both halves."""
    first, second = ops.split(x.value, 2, axis=layer.axis)
    return product(network, [x.of(first), x.of(second, always=True)])


@rule("Matmul", "Einsum", "Dot", "Tensordot")
def contract(network: Linearized, layer: Any, *args: Any, **kwargs: Any) -> Signal:
    """Return the n-th root of a sum of products of n signals, constants as `|c|`."""
    flat = tree.flatten(args)
    branches = signals_in(flat)
    values = [a.value if isinstance(a, Signal) else ops.abs(_value(a)) for a in flat]
    packed = tree.pack_sequence_as(args, values)
    result = layer.call(*packed, **kwargs)
    exponent = sum(branch.exponent for branch in branches)
    return rescale(root(rescale(Signal(result, exponent)), len(branches)))


def _value(constant: Any) -> Any:
    return constant.value if isinstance(constant, keras.Variable) else constant


# -- attention, tokens -------------------------------------------------------------


@rule("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")
def attention(
    network: Linearized,
    layer: Any,
    query: Signal,
    value: Signal,
    key: Signal | None = None,
    *args: Any,
    **kwargs: Any,
) -> Signal:
    """Return `(Q K' V)^(1/3)` of each head, through the output kernel; no masks."""
    if len(query.value.shape) != 3:
        raise NotLinearError(
            f"{type(layer).__name__} {layer.name!r} attends over more than one axis; "
            "linearized attention takes (batch, tokens, features)."
        )
    part = {sublayer.name: sublayer for sublayer in keras_private.sublayers(layer)}
    q = network.run(part["query"], query)
    k = network.run(part["key"], value if key is None else key)
    v = network.run(part["value"], value)
    attended = attend(network, q, k, v)
    return network.run(part["attention_output"], attended)


def attend(network: Linearized, q: Signal, k: Signal, v: Signal) -> Signal:
    """Return `(Q K' V)^(1/3)`, over (batch, tokens, heads, features)."""
    repeats = q.value.shape[2] // k.value.shape[2]
    keys, values = (ops.repeat(s.value, repeats, axis=2) for s in (k, v))
    if not network.strict:  # softmax attends even where queries or keys are zero
        mean = ops.mean(values, axis=1, keepdims=True)
        shape = (*q.value.shape[:-1], values.shape[-1])
        return v.of(ops.broadcast_to(mean, shape))
    scores = ops.einsum("btnh,bsnh->bnts", q.value, keys)
    rescaled = rescale(Signal(scores, q.exponent + k.exponent))
    mixed = ops.einsum("bnts,bsnh->btnh", rescaled.value, values)
    return rescale(root(rescale(Signal(mixed, rescaled.exponent + v.exponent)), 3))


@rule("Embedding")
def embedding(network: Linearized, layer: Any, x: Signal) -> Signal:
    """Return `x` times the mean row of the table: every token alike."""
    row = ops.mean(layer.embeddings.value, axis=0)
    return rescale(x.of(x.value[..., None] * ops.cast(row, x.value.dtype)))


# -- wrappers, and everything else -------------------------------------------------


@rule("Wrapper")
def wrapper(
    network: Linearized, layer: Any, x: Signal, *args: Any, **kwargs: Any
) -> Signal:
    """Run the wrapped layer."""
    return network.run(layer.layer, x, *args, **kwargs)


@rule("TimeDistributed")
def time_distributed(
    network: Linearized, layer: Any, x: Signal, *args: Any, **kwargs: Any
) -> Signal:
    """Run the wrapped layer on each step, as on a sample of its own."""
    batch, steps, *rest = x.value.shape
    folded = x.of(ops.reshape(x.value, (batch * steps, *rest)))
    y = network.run(layer.layer, folded)
    return y.of(ops.reshape(y.value, (batch, steps, *y.value.shape[1:])))


@rule("RNN", "Bidirectional")
def recurrent(network: Linearized, layer: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse: in a recurrence each kernel enters to a power that grows with time."""
    raise NotLinearError(
        f"{type(layer).__name__} {layer.name!r} is recurrent: its kernels are used "
        "once for each time step, so the flow through them is no sum over paths that "
        "use each weight once, and is not conserved. Expected a feed-forward network. "
        "Use kt.SNIP, kt.GraSP or kt.Fisher with data, or kt.Magnitude."
    )


HOMOGENEOUS = re.compile(
    r"Conv|Dense$|Pool|Padding|Cropping|UpSampling|Flatten|Reshape|Permute|Repeat"
    r"|Transpose|Squeeze|ExpandDims|GetItem|^(Mean|Sum|Max|Amax|Pad|Split|Tile|Take)$"
    r"|Swapaxes|Moveaxis|Roll|Flip|BroadcastTo|Ravel|Resizing"
)
"""Classes of Keras that are positively homogeneous without their activation."""


def is_homogeneous(operation: Any) -> bool:
    """Return whether an operation is known to be linear as it is."""
    cls = type(operation)
    return cls.__module__.startswith("keras.") and bool(
        HOMOGENEOUS.search(cls.__name__)
    )


def as_it_is(layer: Any, x: Signal, args: Any, kwargs: Any) -> Any:
    """Return the signals that a layer with one signal gives without activation."""

    def value(argument: Any) -> Any:
        return argument.value if argument is x else argument

    args, kwargs = tree.map_structure(value, (args, kwargs))
    if "training" in inspect.signature(layer.call).parameters:
        kwargs["training"] = False
    with without_activations(layer):
        # `call`, not the layer: no casts to a low precision, no losses, no masks.
        outputs = layer.call(*args, **kwargs)
    weighs = bool(getattr(layer, "weights", ()))
    always = _nonzero_at_zero(layer) or (x.always and not weighs)

    def signal(output: Any) -> Signal:
        made = x.of(output, always=always)
        return pass_layer(made) if weighs else made

    return tree.map_structure(signal, outputs)


@contextlib.contextmanager
def without_activations(layer: Any) -> Iterator[None]:
    """Replace the `activation` of a layer and its sublayers by the identity."""
    layers = keras_private.sublayers(layer) if isinstance(layer, keras.Layer) else []
    # In the instance's own dict: what Keras tracks stays as it is.
    saved = [
        (vars(s), vars(s)["activation"]) for s in layers if "activation" in vars(s)
    ]
    for attributes, _ in saved:
        attributes["activation"] = keras.activations.linear
    try:
        yield
    finally:
        for attributes, activation in saved:
            attributes["activation"] = activation
