"""Shrinking: the same outputs, as few parameters as counted by hand, reasons given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_tickets as kt

TOLERANCE = 1e-5


# -- models with dead channels -------------------------------------------------------


def randomise(model: keras.Model, seed: int = 0) -> None:
    """Give every weight a random value, statistics and biases too."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        fan_in = max(1, int(np.prod(variable.shape[:-1])))
        value = rng.normal(size=variable.shape) / np.sqrt(fan_in)
        if variable.name == "moving_variance":
            value = rng.uniform(0.5, 2, variable.shape)
        variable.assign(value)


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
    y = ops.relu(y + 1.0) * 0.5 - ops.sigmoid(y)
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
def test_the_outputs_stay_and_the_parameters_are_those_counted_by_hand(name):
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


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_left_to_remove_from_what_was_shrunk(name):
    small = kt.shrink(CASES[name]()[0], verbose=False)
    assert kt.shrink_plan(small).removed == {}
