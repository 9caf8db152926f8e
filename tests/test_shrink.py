"""Shrinking: the same outputs, as few parameters as counted by hand, reasons given."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_tickets as kt

pytestmark = pytest.mark.backend_independent

TOLERANCE = 1e-5

# Scales of both signs: a rule may not count on one.
randomise = functools.partial(zoo.randomise, positive=zoo.SPREADS)


# -- models with dead channels -------------------------------------------------------


def change(variable: keras.Variable, index, value: float = 0.0) -> None:
    values = ops.convert_to_numpy(variable.value).copy()
    values[index] = value
    variable.assign(values)


def kill(layer: layers.Layer, channels, bias: float | None = None) -> None:
    """Zero the weights of some outputs; the bias stays unless one is given."""
    channels = list(channels)
    transposed = type(layer).__name__.endswith("Transpose")
    index = (..., channels, slice(None)) if transposed else (..., channels)
    kernel = getattr(layer, "pointwise_kernel", None)
    change(layer.kernel if kernel is None else kernel, index)
    if bias is not None and layer.use_bias:
        change(layer.bias, channels, bias)


def image(channels: int = 3, size: int = 8) -> keras.KerasTensor:
    return keras.Input((size, size, channels))


def conv(size: int, ins: int, outs: int, bias: bool = True) -> int:
    return size * size * ins * outs + bias * outs


def norm(channels: int) -> int:
    return 4 * channels


def dense(ins: int, outs: int) -> int:
    return ins * outs + outs


# -- each builder returns a model and the parameters it should shrink to ---------------


def chain():
    first, second = layers.Conv2D(8, 3), layers.Conv2D(6, 3)
    x = image()
    y = second(layers.ReLU()(layers.BatchNormalization()(first(x))))
    model = keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(y)))
    randomise(model)
    kill(first, (0, 3, 7))
    kill(second, (1, 5))
    return model, conv(3, 3, 5) + norm(5) + conv(3, 5, 4) + dense(4, 4)


def surviving_shift():
    """A constant other than zero before padding stays, one that ReLU removes goes."""
    first = layers.Conv2D(8, 3, padding="same", use_bias=False)
    bn = layers.BatchNormalization()
    second = layers.Conv2D(4, 3, padding="same", use_bias=False)
    x = image()
    y = second(layers.ReLU()(bn(first(x))))
    model = keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling2D()(y)))
    randomise(model)
    kill(first, (0, 1, 2))
    change(bn.moving_mean, [0, 1, 2])
    change(bn.beta, [0, 1], -1.0)
    change(bn.beta, 2, 0.5)
    return model, conv(3, 3, 6, False) + norm(6) + conv(3, 6, 4, False) + dense(4, 2)


def same_without_padding():
    """Where no position is padded, "same" folds as "valid" does."""
    first, pointwise = layers.Conv2D(6, 1), layers.Conv2D(5, 1, padding="same")
    halves = layers.Conv2D(4, 2, 2, padding="same", use_bias=False)
    x = image()
    model = keras.Model(x, halves(pointwise(first(x))))
    randomise(model)
    kill(first, (0, 1))
    kill(pointwise, (2, 4))
    return model, conv(1, 3, 4) + conv(1, 4, 3) + conv(2, 3, 4, True)


def residual_identity():
    stem = layers.Conv2D(8, 1, use_bias=False)
    branch = layers.Conv2D(8, 3, padding="same", use_bias=False)
    x = image()
    y = stem(x)
    z = layers.ReLU()(layers.Add()([y, layers.BatchNormalization()(branch(y))]))
    model = keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(z)))
    randomise(model)
    kill(stem, (0, 1, 2))
    kill(branch, (1, 2, 3))
    return model, conv(1, 3, 6, False) + conv(3, 6, 6, False) + norm(6) + dense(6, 4)


def residual_projection():
    stem = layers.Conv2D(4, 1, use_bias=False)
    first = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)
    bn = layers.BatchNormalization()
    second = layers.Conv2D(8, 3, padding="same", use_bias=False)
    short = layers.Conv2D(8, 1, 2, use_bias=False)
    x = image()
    y = stem(x)
    a = second(layers.ReLU()(bn(first(y))))
    a = layers.BatchNormalization()(a)
    z = layers.ReLU()(layers.Add()([layers.BatchNormalization()(short(y)), a]))
    model = keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(z)))
    randomise(model)
    kill(first, (0, 1, 2, 3))
    change(bn.moving_mean, [0, 1, 2, 3])
    change(bn.beta, [0, 1, 2, 3], -0.5)
    kill(second, (0, 1, 6))
    kill(short, (1, 2, 6))
    expected = conv(1, 3, 4, False) + conv(3, 4, 4, False) + norm(4)
    expected += conv(3, 4, 6, False) + conv(1, 4, 6, False) + 2 * norm(6)
    return model, expected + dense(6, 4)


def inverted_residual():
    stem = layers.Conv2D(4, 3, padding="same", use_bias=False)
    expand = layers.Conv2D(12, 1, use_bias=False)
    bn = layers.BatchNormalization()
    depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    project = layers.Conv2D(4, 1, use_bias=False)
    x = image()
    y = stem(x)
    z = layers.ReLU(6.0)(bn(expand(y)))
    z = layers.ReLU(6.0)(layers.BatchNormalization()(depthwise(z)))
    z = layers.Add()([y, layers.BatchNormalization()(project(z))])
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(z)))
    randomise(model)
    kill(expand, range(5))
    change(bn.moving_mean, list(range(5)))
    change(bn.beta, list(range(5)), -0.1)
    kill(stem, (2,))
    kill(project, (2, 3))
    # The shift after the depthwise kernel survives ReLU6: the projection gets a bias.
    expected = conv(3, 3, 3, False) + conv(1, 3, 7, False) + 2 * norm(7) + 9 * 7
    return model, expected + conv(1, 7, 3, True) + norm(3) + dense(3, 3)


def depth_multiplier():
    first = layers.Conv2D(4, 1, use_bias=False)
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2)
    x = image()
    y = depthwise(first(x))
    model = keras.Model(x, layers.Conv2D(3, 1)(y))
    randomise(model)
    kill(first, (1,))
    change(depthwise.kernel, (..., 2, slice(None)))  # both filters of one channel
    change(depthwise.kernel, (..., 3, 0))  # one of two filters: the channel stays
    return model, conv(1, 3, 2, False) + 9 * 4 + 4 + conv(1, 4, 3)


def densenet():
    first, second = layers.Conv2D(5, 1, use_bias=False), layers.Conv2D(6, 1)
    x = image()
    a = first(x)
    b = second(a)
    c = layers.Concatenate()([a, b, x])
    d = layers.ReLU()(layers.BatchNormalization()(c))
    model = keras.Model(x, layers.Conv2D(4, 3, use_bias=False)(d))
    randomise(model)
    kill(first, (0, 4))
    kill(second, (0, 2, 3))
    # Constants that survive go into a bias that the last layer did not have.
    wide = 3 + 3 + 3
    return model, (
        conv(1, 3, 3, False) + conv(1, 3, 3) + norm(wide) + conv(3, wide, 4, True)
    )


def unet():
    down = layers.Conv2D(6, 3, padding="same", activation="relu")
    deep = layers.Conv2D(8, 3, padding="same", activation="relu")
    up = layers.Conv2DTranspose(6, 2, 2)
    head = layers.Conv2D(2, 3, padding="same")
    x = image()
    a = down(x)
    b = deep(layers.MaxPooling2D()(a))
    model = keras.Model(x, head(layers.Concatenate()([up(b), a])))
    randomise(model)
    kill(down, (0, 1), bias=-1.0)
    kill(deep, (5, 6, 7), bias=-1.0)
    kill(up, (0, 3), bias=0.0)
    return model, conv(3, 3, 4) + conv(3, 4, 5) + conv(2, 5, 4) + conv(3, 8, 2)


def flattened():
    first, hidden = layers.Conv2D(6, 3), layers.Dense(7, activation="relu")
    x = image()
    y = layers.MaxPooling2D()(layers.Activation("tanh")(first(x)))
    model = keras.Model(x, layers.Dense(3)(hidden(layers.Flatten()(y))))
    randomise(model)
    kill(first, (2, 5))
    kill(hidden, (0, 6))
    return model, conv(3, 3, 4) + dense(3 * 3 * 4, 5) + dense(5, 3)


def vgg():
    model = keras.Sequential(
        [
            image(size=12),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="a"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="b"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", activation="relu", name="c"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="relu", name="d"),
            layers.Dense(4, activation="softmax"),
        ]
    )
    randomise(model)
    for name, dead in (("a", 4), ("b", 4), ("c", 6), ("d", 5)):
        kill(model.get_layer(name), range(dead), bias=-0.5)
    expected = conv(3, 3, 4) + conv(3, 4, 4) + conv(3, 4, 6)
    return model, expected + dense(9 * 6, 5) + dense(5, 4)


def squeeze_and_excite():
    first = layers.Conv2D(8, 3, use_bias=False)
    squeeze = layers.Conv2D(4, 1, activation="relu")
    excite = layers.Conv2D(8, 1, activation="sigmoid")
    x = image()
    y = first(x)
    s = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    y = layers.Multiply()([y, excite(squeeze(s))])
    model = keras.Model(x, layers.Conv2D(3, 3, padding="same")(y))
    randomise(model)
    kill(first, (0, 1, 2))
    kill(squeeze, (3,))
    return model, conv(3, 3, 5, False) + conv(1, 5, 3) + conv(1, 3, 5) + conv(3, 5, 3)


def dense_gate():
    first = layers.Conv2D(8, 3, use_bias=False)
    x = image()
    y = first(x)
    s = layers.GlobalAveragePooling2D(keepdims=True)(y)
    s = layers.Dense(8, activation="hard_sigmoid")(layers.Dense(2)(s))
    model = keras.Model(x, layers.Conv2D(3, 1)(layers.multiply([y, s])))
    randomise(model)
    kill(first, (7,))
    return model, conv(3, 3, 7, False) + dense(7, 2) + dense(2, 7) + conv(1, 7, 3)


def shared():
    """The same channels in both calls; a constant that differs between them stays."""
    first = layers.Dense(12)
    twice = layers.Dense(12, activation="relu")
    x = keras.Input((5,))
    model = keras.Model(x, layers.Dense(4)(twice(twice(first(x)))))
    randomise(model)
    for layer in (first, twice):
        kill(layer, (0, 1))
    change(first.bias, [0, 1], 0.0)
    change(twice.bias, 0, -0.5)
    change(twice.bias, 1, 0.5)
    return model, dense(5, 11) + dense(11, 11) + dense(11, 4)


def shared_norm():
    """Two branches through one BatchNorm: a channel goes only where both are dead."""
    one, two = (layers.Conv2D(6, 1, use_bias=False) for _ in range(2))
    bn = layers.BatchNormalization()
    x = image()
    model = keras.Model(x, layers.Concatenate()([bn(one(x)), bn(two(x))]))
    model = keras.Model(x, layers.Conv2D(3, 3)(model.output))
    randomise(model)
    kill(one, (0, 1, 2))
    kill(two, (1, 2, 3))
    return model, 2 * conv(1, 3, 4, False) + norm(4) + conv(3, 8, 3)


def nested():
    inner_input = keras.Input((6, 6, 8))
    head = layers.Conv2D(6, 3, name="head")
    tail = keras.Model(inner_input, layers.ReLU()(head(inner_input)), name="tail")
    stem = keras.Sequential(
        [image(), layers.Conv2D(8, 3, name="c"), layers.BatchNormalization()],
        name="stem",
    )
    x = image()
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(tail(stem(x)))))
    randomise(model)
    kill(stem.get_layer("c"), (0, 1, 2))
    kill(head, (4,))
    return model, conv(3, 3, 5) + norm(5) + conv(3, 5, 5) + dense(16 * 5, 2)


def nested_twice():
    body_input = keras.Input((4,))
    inner = layers.Dense(8, activation="relu", name="inner")
    body = keras.Model(body_input, layers.Dense(3)(inner(body_input)), name="body")
    a, b = keras.Input((4,)), keras.Input((4,))
    outputs = layers.Dense(2)(layers.Concatenate()([body(a), body(b)]))
    model = keras.Model([a, b], outputs)
    randomise(model)
    kill(inner, (0, 5))
    return model, dense(4, 6) + dense(6, 3) + dense(6, 2)


def several_outputs():
    trunk = layers.Dense(8, activation="relu")
    left, right = layers.Dense(3, name="left"), layers.Dense(2, name="right")
    x = keras.Input((5,))
    y = trunk(x)
    model = keras.Model(x, {"left": left(y), "right": right(y)})
    randomise(model)
    kill(trunk, (0,))
    kill(left, (1,))  # an output of the model: it stays
    change(left.kernel, ([2, 3], slice(None)))  # unread by one, read by the other
    change(right.kernel, ([3, 4], slice(None)))
    return model, dense(5, 6) + dense(6, 3) + dense(6, 2)


def mlp():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(9, activation="gelu", name="a"),
            layers.Dropout(0.1),
            layers.Dense(8, use_bias=False, name="b"),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Dense(3),
        ]
    )
    randomise(model)
    kill(model.get_layer("a"), (0, 8))
    kill(model.get_layer("b"), (3,))
    # The constants of `a` give `b` a bias.
    return model, dense(6, 7) + dense(7, 7) + norm(7) + dense(7, 3)


def unread():
    """Nobody reads: alive, but removed; and what only it read goes too."""
    first, second = layers.Dense(8), layers.Dense(6, activation="tanh")
    last = layers.Dense(2)
    x = keras.Input((4,))
    model = keras.Model(x, last(second(first(x))))
    randomise(model)
    change(last.kernel, ([0, 1], slice(None)))
    change(second.kernel, ([0, 1, 2], slice(2, None)))  # read by unread ones only
    return model, dense(4, 5) + dense(5, 4) + dense(4, 2)


def zero_scale():
    """A BatchNorm whose scale is zero kills a channel, and its shift goes on."""
    first, bn = layers.Conv2D(6, 3), layers.BatchNormalization()
    x = image()
    model = keras.Model(x, layers.Conv2D(4, 3)(bn(first(x))))
    randomise(model)
    change(bn.gamma, [0, 2])
    return model, conv(3, 3, 4) + norm(4) + conv(3, 4, 4)


def sequence():
    first = layers.Conv1D(8, 3, padding="causal", activation="relu")
    second = layers.SeparableConv1D(6, 3)
    x = keras.Input((10, 3))
    y = second(first(x))
    model = keras.Model(x, layers.Conv1D(4, 3, padding="causal")(y))
    randomise(model)
    kill(first, (0, 1), bias=-1.0)
    kill(first, (2,), bias=1.0)
    kill(second, (3,), bias=0.0)
    kill(second, (4,), bias=0.5)  # stays: the causal layer pads it
    expected = 3 * 3 * 5 + 5 + 3 * 5 + 5 * 5 + 5 + 3 * 5 * 4 + 4
    return model, expected


def prelu_and_padding():
    first = layers.Conv2D(6, 1)
    slope = layers.PReLU(shared_axes=[1, 2])
    x = image()
    y = layers.ZeroPadding2D()(slope(first(x)))
    model = keras.Model(x, layers.Conv2D(3, 3)(y))
    randomise(model)
    kill(first, (0, 1), bias=0.0)
    kill(first, (2,), bias=-1.0)
    kill(first, (3,), bias=1.0)
    change(slope.alpha, (..., 2), 0.0)  # -1 becomes zero there; 1 is padded, and stays
    return model, conv(1, 3, 3) + 3 + conv(3, 3, 3)


def operations():
    first = layers.Conv2D(6, 1, use_bias=False)
    x = image()
    y = first(x)
    y = layers.Add()([ops.relu(y + 1.0) * 0.5, y])  # the layer Add, the operation Add
    y = y - ops.sigmoid(y)
    model = keras.Model(x, layers.Conv2D(3, 3)(y))
    randomise(model)
    kill(first, (1, 2))
    return model, conv(1, 3, 4, False) + conv(3, 4, 3)


def all_dead():
    first = layers.Conv2D(6, 3)
    x = image()
    y = layers.Conv2D(5, 3)(layers.ReLU()(first(x)))
    model = keras.Model(x, layers.Conv2D(2, 1)(y))
    randomise(model)
    kill(first, range(6))
    # The second layer is constant then, so it is left with one channel too.
    return model, conv(3, 3, 1) + conv(3, 1, 1) + conv(1, 1, 2)


def softmax_inside():
    """A channel that is constant before softmax is not constant after it."""
    first = layers.Dense(6, activation="softmax")
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3)(first(x)))
    randomise(model)
    kill(first, (0, 1))
    return model, dense(4, 6) + dense(6, 3)


def stacked():
    """Put together along an axis of positions: constant only where both agree."""
    one, two = layers.Conv1D(6, 1), layers.Conv1D(6, 1)
    x = keras.Input((5, 3))
    y = layers.Concatenate(axis=1)([one(x), two(x)])
    model = keras.Model(x, layers.Conv1D(3, 2)(y))
    randomise(model)
    kill(one, (0, 1, 2), bias=0.5)
    kill(two, (0, 1), bias=0.5)
    change(two.bias, 1, 0.4)
    return model, 2 * (3 * 5 + 5) + 2 * 5 * 3 + 3


def attended():
    """One channel of weights for all positions, multiplied into many channels."""
    first, spot = layers.Conv2D(6, 3), layers.Conv2D(1, 1, activation="sigmoid")
    x = image()
    y = first(x)
    y = layers.Multiply()([y, spot(y)])
    model = keras.Model(x, layers.Conv2D(3, 3)(y))
    randomise(model)
    kill(first, (0,), bias=0.0)
    kill(first, (1,))  # a constant times what varies is no constant
    return model, conv(3, 3, 5) + conv(1, 5, 1) + conv(3, 5, 3)


def shared_in_two_sizes():
    """Where one of two calls pads, a constant other than zero is not folded."""
    first = layers.Conv2D(5, 1)
    second = layers.Conv2D(4, 2, 2, padding="same")
    x, y = image(size=7), image(size=8)
    calls = [layers.GlobalAveragePooling2D()(second(first(z))) for z in (x, y)]
    model = keras.Model([x, y], layers.Dense(2)(layers.Add()(calls)))
    randomise(model)
    kill(first, (0, 1), bias=0.0)
    kill(first, (2,), bias=0.5)
    return model, conv(1, 3, 3) + conv(2, 3, 4) + dense(4, 2)


def transposed_border():
    """The border of a transposed convolution gets fewer products than its middle."""
    first, up = layers.Conv2D(4, 1), layers.Conv2DTranspose(3, 3, 2)
    x = image()
    model = keras.Model(x, up(first(x)))
    randomise(model)
    kill(first, (0,), bias=0.0)
    kill(first, (1,), bias=0.5)
    return model, conv(1, 3, 3) + conv(3, 3, 3)


def depthwise_border():
    """A padded depthwise kernel makes no constant of a constant other than zero."""
    first, depthwise = layers.Conv2D(4, 1), layers.DepthwiseConv2D(3, padding="same")
    x = image()
    model = keras.Model(x, layers.Conv2D(3, 1)(depthwise(first(x))))
    randomise(model)
    kill(first, (0,), bias=0.0)
    kill(first, (1,), bias=0.5)
    return model, conv(1, 3, 3) + 9 * 3 + 3 + conv(1, 3, 3)


CASES: dict[str, Callable[[], tuple[keras.Model, int]]] = {
    builder.__name__: builder
    for builder in (
        chain,
        surviving_shift,
        same_without_padding,
        residual_identity,
        residual_projection,
        inverted_residual,
        depth_multiplier,
        densenet,
        unet,
        flattened,
        vgg,
        squeeze_and_excite,
        dense_gate,
        shared,
        shared_norm,
        nested,
        nested_twice,
        several_outputs,
        mlp,
        unread,
        zero_scale,
        sequence,
        prelu_and_padding,
        operations,
        all_dead,
        softmax_inside,
        stacked,
        attended,
        shared_in_two_sizes,
        transposed_border,
        depthwise_border,
    )
}


def inputs_for(model: keras.Model, seed: int = 1):
    rng = np.random.default_rng(seed)
    arrays = [
        rng.normal(size=(4, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]
    return arrays[0] if len(arrays) == 1 else arrays


def assert_same_outputs(model: keras.Model, small: keras.Model) -> None:
    x = inputs_for(model)
    keras.tree.map_structure(assert_close, model(x), small(x))


def assert_close(expected, found) -> None:
    expected, found = map(ops.convert_to_numpy, (expected, found))
    assert expected.shape == found.shape
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(expected - found).max() <= TOLERANCE * scale


def snapshot(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v.value).copy() for v in model.variables]


@pytest.mark.parametrize("name", CASES)
def test_outputs_stay_and_parameters_are_those_counted_by_hand(name):
    model, expected = CASES[name]()
    config, before = model.get_config(), snapshot(model)
    small = kt.shrink(model, verbose=False)
    assert_same_outputs(model, small)
    assert small.count_params() == expected
    assert kt.shrink_plan(model).parameters == (model.count_params(), expected)
    assert small is not model
    assert model.get_config() == config
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [layer.name for layer in small.layers] == [x.name for x in model.layers]
    assert kt.shrink_plan(small).removed == {}


# -- what is left alone ----------------------------------------------------------------


class Own(layers.Layer):
    def call(self, inputs):
        return ops.flip(inputs, axis=-1)


def after_conv1d(*barrier) -> keras.Model:
    """Dead channels in front of a layer that no rule covers."""
    x = keras.Input((10, 3))
    y = layers.Conv1D(8, 3, name="dead")(x)
    for layer in barrier:
        y = layer(y)
    return keras.Model(x, layers.Dense(2)(y))


def attention() -> keras.Model:
    x = keras.Input((10, 3))
    y = layers.Conv1D(8, 3, name="dead")(x)
    y = layers.MultiHeadAttention(2, 4, name="barrier")(y, y)
    return keras.Model(x, layers.Dense(2)(y))


def trained() -> keras.Model:
    x = keras.Input((10, 3))
    y = layers.Conv1D(8, 3, name="dead")(x)
    y = layers.BatchNormalization(name="barrier")(y, training=True)
    return keras.Model(x, layers.Dense(2)(y))


def first_axis() -> keras.Model:
    x = keras.Input((10, 3))
    y = layers.Conv1D(8, 3, name="dead")(x)
    y = layers.BatchNormalization(axis=1, name="barrier")(y)
    return keras.Model(x, layers.Dense(2)(y))


BARRIERS = {
    "recurrent": lambda: after_conv1d(layers.GRU(4, name="barrier")),
    "attends": attention,
    "2 groups": lambda: after_conv1d(layers.Conv1D(4, 3, groups=2, name="barrier")),
    "a class of its own, Own": lambda: after_conv1d(Own(name="barrier")),
    "normalizes over several": lambda: after_conv1d(
        layers.LayerNormalization(name="barrier")
    ),
    "axis 1, not the last": first_axis,
    "computes softmax": lambda: after_conv1d(
        layers.Activation("softmax", name="barrier")
    ),
    "computes each channel from several": lambda: after_conv1d(
        layers.Softmax(name="barrier")
    ),
    "mixes channels and positions": lambda: after_conv1d(
        layers.Reshape((16, 4), name="barrier")
    ),
    "cannot be looked into": lambda: after_conv1d(
        layers.Lambda(lambda x: x * 2, output_shape=(8, 8), name="barrier")
    ),
    "no rule for Permute": lambda: after_conv1d(layers.Permute((2, 1), name="barrier")),
    "called with training": trained,
    "has its channels first": lambda: after_conv1d(
        layers.GlobalAveragePooling1D(data_format="channels_first", name="barrier")
    ),
    "a number of its own": lambda: after_conv1d(
        layers.Rescaling([1.0] * 8, name="barrier")
    ),
}


@pytest.mark.parametrize("reason", BARRIERS)
def test_what_no_rule_covers_is_left_alone_and_named(reason):
    model = BARRIERS[reason]()
    randomise(model)
    kill(model.get_layer("dead"), (0, 1))
    plan = kt.shrink_plan(model)
    assert plan.removed == {}
    (barrier,) = [left for left in plan.left if left.layer == "barrier"]
    assert reason in barrier.reason
    (dead,) = [left for left in plan.left if left.layer == "dead"]
    assert dead.channels == 2
    assert "'barrier'" in dead.reason
    assert "barrier" in str(plan)
    assert_same_outputs(model, kt.shrink(model, verbose=False))


def test_a_layer_that_is_also_inside_of_one_that_is_left_alone_stays():
    inner = layers.Dense(8, name="inner")
    x = keras.Input((10, 8))
    y = layers.TimeDistributed(inner, name="barrier")(x)
    model = keras.Model(x, layers.Dense(2)(inner(y)))
    kill(inner, (0, 1), bias=0.0)
    plan = kt.shrink_plan(model)
    assert plan.removed == {}
    reasons = {left.layer: left.reason for left in plan.left}
    assert "no rule for TimeDistributed" in reasons["barrier"]
    assert "used elsewhere" in reasons["inner"]


def test_quantised_and_lora_kernels_are_left_alone():
    for prepare in (lambda x: x.enable_lora(2), lambda x: x.quantize("int8")):
        model = mlp()[0]
        prepare(model.get_layer("b"))
        plan = kt.shrink_plan(model)
        assert plan.removed == {}
        assert "b" in [left.layer for left in plan.left if not left.channels]


def test_layers_behind_and_before_a_barrier_shrink():
    x = keras.Input((10, 3))
    first, second = layers.Conv1D(8, 3), layers.Conv1D(6, 3)
    y = layers.LSTM(5, return_sequences=True)(second(first(x)))
    third = layers.Dense(7)
    model = keras.Model(x, layers.Dense(2)(third(y)))
    randomise(model)
    for layer in (first, second, third):
        kill(layer, (0, 1))
    assert sorted(kt.shrink_plan(model).removed) == sorted([first.name, third.name])
    assert_same_outputs(model, kt.shrink(model, verbose=False))


@pytest.mark.parametrize(
    ("build", "layer", "channels", "reason"),
    [
        (surviving_shift, 0, 1, "pads with zeros"),
        (residual_identity, 0, 1, "coupled to other channels by 'add"),
        (several_outputs, 1, 1, "an output of the model"),
        (all_dead, 0, 1, "the last channel of"),
        (shared, 1, 1, "read by"),
    ],
)
def test_dead_channels_that_stay_say_why(build, layer, channels, reason):
    model, _ = build()
    kernels = [x for x in model.layers if hasattr(x, "kernel")]
    rows = [r for r in kt.shrink_plan(model).left if r.layer == kernels[layer].name]
    assert [row.channels for row in rows if reason in row.reason] == [channels]


def test_the_table_tells_what_goes_and_what_stays(capsys):
    model, expected = surviving_shift()
    kt.shrink(model)
    printed = capsys.readouterr().out
    assert f"{expected:,} parameters" in printed
    assert "1 dead: a constant other than zero" in " ".join(printed.split())


# -- what is carried over --------------------------------------------------------------


@pytest.mark.backend_independent(False)
def test_a_ticket_shrinks_to_what_its_masks_leave():
    model, expected = vgg()
    ticket = kt.wrap(model, kt.Magnitude(0.3))
    ticket.draw()
    small = kt.shrink(ticket, verbose=False)
    assert isinstance(small, keras.Sequential)
    assert small.count_params() <= expected
    assert_same_outputs(kt.strip(ticket), small)
    assert model.get_layer("a").filters == 8


def test_settings_of_layers_stay():
    x = keras.Input((8, 8, 3), name="picture")
    y = layers.Conv2D(
        6,
        3,
        name="c",
        kernel_regularizer=keras.regularizers.L2(0.1),
        kernel_constraint="max_norm",
        trainable=False,
        dtype="mixed_float16",
    )(x)
    y = layers.Dropout(0.5, seed=3)(y)
    model = keras.Model(x, {"out": layers.Conv2D(2, 1, dtype="float32")(y)}, name="m")
    model.compile("adam", {"out": "mse"})
    randomise(model)
    kill(model.get_layer("c"), (0, 5))
    small = kt.shrink(model, verbose=False)
    config = model.get_layer("c").get_config()
    assert small.get_layer("c").get_config() == {**config, "filters": 4}
    assert (small.name, small.inputs[0].name) == ("m", "picture")
    assert set(small.output) == {"out"}
    assert not small.compiled
    assert model.compiled


def test_inputs_of_any_size():
    x = keras.Input((None, None, 3))
    first = layers.Conv2D(6, 3, padding="same", activation="relu")
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(first(x)))
    model = keras.Model(x, layers.Dense(2)(y))
    randomise(model)
    kill(first, (0, 1), bias=-1.0)
    kill(first, (2,), bias=1.0)
    small = kt.shrink(model, verbose=False)
    assert small.get_layer(first.name).filters == 4
    for size in (5, 8):
        picture = np.random.default_rng(0).normal(size=(2, size, size, 3))
        assert_close(model(picture), small(picture))


def test_multiplications_are_those_of_the_channels_that_stay():
    model, _ = vgg()
    small = kt.shrink(model, verbose=False)
    expected = 144 * 9 * (3 * 4 + 4 * 4) + 36 * 9 * 4 * 6 + 9 * 6 * 5 + 5 * 4
    assert kt.flops(small).macs == expected


@pytest.mark.backend_independent(False)
def test_what_was_shrunk_saves_loads_and_trains(tmp_path):
    model, _ = inverted_residual()
    small = kt.shrink(model, verbose=False)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert_same_outputs(model, again)
    again.compile("sgd", "mse")
    again.fit(inputs_for(model), np.zeros((4, 3)), verbose=0)


# -- refusals --------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class Functional(keras.Model):
    """A graph, and numbers that its own constructor fixes."""

    def __init__(self, units=4):
        x = keras.Input((3,))
        y = layers.Dense(2)(layers.Dense(units, name="hidden")(x))
        super().__init__(x, y, name="mine")


def called() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    return model


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (Subclassed, ValueError, "'mine' is not built"),
        (called, ValueError, "'mine' has no graph of layers.*keras.Model"),
        (Functional, ValueError, "'mine' is a class of its own.*model.input"),
        (lambda: layers.Dense(2), TypeError, "Expected a keras.Model or a ticket"),
    ],
)
def test_models_that_can_not_be_looked_into_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        kt.shrink(build())


@pytest.mark.backend_independent(False)
def test_the_advice_for_a_class_of_its_own_works():
    mine = Functional()
    randomise(mine)
    kill(mine.get_layer("hidden"), (0,))
    plain = keras.Model(mine.input, mine.output)
    small = kt.shrink(plain, verbose=False)
    assert small.get_layer("hidden").units == 3
    assert_same_outputs(mine, small)


class Unnamed(layers.Layer):
    def get_config(self):
        return {}

    def call(self, inputs):
        return inputs * 2


@pytest.mark.parametrize("functional", [True, False])
def test_a_config_may_leave_the_name_out(functional):
    dead, middle = layers.Dense(4, use_bias=False), layers.Dense(4)
    stack = [dead, middle, Unnamed(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *stack])
    if functional:
        model = keras.Model(model.inputs[0], model.outputs[0])
    kill(dead, (1,))
    small = kt.shrink(model, verbose=False)
    assert small.count_params() == model.count_params() - 3 - 4
    assert_same_outputs(model, small)


def test_a_nested_class_of_its_own_is_left_alone():
    x = keras.Input((3,))
    inner = Functional()
    model = keras.Model(x, layers.Dense(2)(inner(layers.Dense(3, name="front")(x))))
    randomise(model)
    kill(model.get_layer("front"), (0,))
    kill(inner.get_layer("hidden"), (0,))
    plan = kt.shrink_plan(model)
    assert plan.removed == {}
    assert [left.layer for left in plan.left] == ["front", "mine"]


# -- any graph -------------------------------------------------------------------------


@dataclasses.dataclass
class Growing:
    """A random network while it is made: tensors of one size, to choose from."""

    draw: Callable
    tensors: list

    def pick(self):
        back = self.draw(st.integers(1, min(3, len(self.tensors))))
        return self.tensors[-back]

    def conv(self):
        size = self.draw(st.sampled_from([1, 3]))
        padding, bias = "same", self.draw(st.booleans())
        filters = self.draw(st.integers(2, 5))
        return layers.Conv2D(filters, size, padding=padding, use_bias=bias)(self.pick())

    def valid(self):
        y = layers.ZeroPadding2D()(self.pick())
        return layers.Conv2D(self.draw(st.integers(2, 5)), 3)(y)

    def bn(self):
        return layers.BatchNormalization()(self.pick())

    def activation(self):
        name = self.draw(st.sampled_from(["relu", "tanh", "sigmoid", "softplus"]))
        return layers.Activation(name)(self.pick())

    def depthwise(self):
        return layers.DepthwiseConv2D(3, padding="same")(self.pick())

    def pool(self):
        kind = self.draw(
            st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D])
        )
        return kind(2, 1, padding="same")(self.pick())

    def concat(self):
        return layers.Concatenate()([self.pick(), self.pick()])

    def join(self):
        first = self.pick()
        alike = [t for t in self.tensors if t.shape == first.shape]
        second = alike[self.draw(st.integers(0, len(alike) - 1))]
        if first.shape[-1] == 3:  # channels of the input would keep all they meet
            first = layers.Conv2D(4, 1)(first)
            second = layers.Conv2D(4, 3, padding="same")(second)
        kind = self.draw(
            st.sampled_from(
                [layers.Add, layers.Multiply, layers.Maximum, layers.Average]
            )
        )
        return kind()([first, second])

    def gate(self):
        y = self.pick()
        channels = y.shape[-1]
        s = layers.Dense(channels, activation="sigmoid")(
            layers.GlobalAveragePooling2D()(y)
        )
        return layers.Multiply()([y, layers.Reshape((1, 1, channels))(s)])


STEPS = (
    "conv conv conv valid bn bn activation activation depthwise pool concat join gate"
)


def network(draw: Callable) -> keras.Model:
    x = image(size=4)
    growing = Growing(draw, [layers.Conv2D(5, 1, activation="relu")(x)])
    for step in draw(st.lists(st.sampled_from(STEPS.split()), min_size=4, max_size=9)):
        growing.tensors.append(getattr(growing, step)())
    last = layers.Concatenate()(growing.tensors[-2:])
    if draw(st.booleans()):
        last = layers.Flatten()(last)
    model = keras.Model(x, layers.Dense(2)(last))
    seed = draw(st.integers(0, 999))
    randomise(model, seed)
    deaden(model, np.random.default_rng(seed))
    return model


def deaden(model: keras.Model, rng: np.random.Generator) -> None:
    """Kill random channels: by kernels, some with their biases or BatchNorm's scale."""
    for layer in model.layers[:-1]:
        if isinstance(layer, layers.BatchNormalization):
            dead = np.flatnonzero(rng.random(layer.gamma.shape[0]) < 0.3)
            change(layer.gamma if rng.random() < 0.5 else layer.beta, dead)
        elif isinstance(layer, layers.Conv2D | layers.Dense):
            dead = np.flatnonzero(rng.random(layer.kernel.shape[-1]) < 0.5)
            kill(layer, dead, bias=(None, 0.0, -1.0)[rng.integers(3)])


# JAX compiles each operation for each shape, which takes ten times as long.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 30


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_any_graph_keeps_its_outputs(data):
    model = network(data.draw)
    small = kt.shrink(model, verbose=False)
    assert_same_outputs(model, small)
    removed = sum(map(len, kt.shrink_plan(model).removed.values()))
    assert (small.count_params() < model.count_params()) or not removed
