"""Preparing at another input size: the same network as one that is built there."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from test_prepare import TOLERANCE, compared, end, image, randomise, stem, stock

import keras_tickets as kt

pytestmark = pytest.mark.backend_independent


def moved(model: keras.Model, size) -> keras.Model:
    return kt.mobile.prepare(model, size=size, verbose=False)


def alike(model: keras.Model, other: keras.Model) -> None:
    """Check that a network is another one, layer by layer."""
    for a, b in zip(model.layers, other.layers, strict=True):
        assert type(a) is type(b)
        assert a.output.shape == b.output.shape, a.name
    assert compared(model, other) == 0


def blocks(size, kernel: int, pad) -> keras.Model:
    pair = size if isinstance(size, tuple) else (size, size)
    x = keras.Input((*pair, 3), name="image")
    y = layers.ZeroPadding2D(pad, name="pad")(stem(x))
    y = layers.DepthwiseConv2D(kernel, 2, name="dw")(y)
    return end(x, layers.Conv2D(8, 1)(y))


LOWER = ((0, 1), (0, 1))

# From a size and its padding to another.
MOVED = {
    "even to odd": (24, 3, LOWER, 25, ((1, 1), (1, 1))),
    "even to even": (24, 3, LOWER, 28, LOWER),
    "kernel of 5": (24, 5, ((1, 2), (1, 2)), 25, ((2, 2), (2, 2))),
    "odd to even": (25, 3, ((1, 1), (1, 1)), 28, ((1, 1), (1, 1))),
    "alike": (24, 3, ((1, 1), (1, 1)), 25, ((1, 1), (1, 1))),
    "not as same does": (25, 3, LOWER, 33, LOWER),
    "height and width": (24, 3, LOWER, (25, 28), ((1, 1), (0, 1))),
    "of unknown size": (None, 3, LOWER, 25, ((1, 1), (1, 1))),
}


@pytest.mark.parametrize("case", MOVED)
def test_moves(case):
    before, kernel, pad, after, expected = MOVED[case]
    model = randomise(blocks(before, kernel, pad))
    weights = [np.array(x) for x in model.get_weights()]
    there = blocks(after, kernel, expected)
    there.set_weights(weights)
    alike(moved(model, after), kt.mobile.prepare(there, verbose=False))
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def whole_mean(size: int) -> keras.Model:
    x = image(size)
    y = layers.Conv2D(8, 1)(stem(x))
    y = layers.AveragePooling2D(y.shape[1], name="mean")(y)
    return keras.Model(x, layers.Dense(4)(layers.Flatten()(y)))


def nested(size: int) -> keras.Model:
    x, y = image(size), keras.Input((size, size, 3), name="pixels")
    inner = keras.Model(y, layers.Conv2D(8, 1, name="mix")(stem(y)), name="base")
    return end(x, inner(layers.Rescaling(0.5)(x)))


def chain(size: int) -> keras.Model:
    convolution = layers.Conv2D(6, 3, 2, "same", name="stem")
    mean = layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input((size, size, 3)), convolution, mean])


def two_images(size: int) -> keras.Model:
    doors = {name: keras.Input((size, size, 3), name=name) for name in "ab"}
    doors["age"] = keras.Input((1,), name="age")
    y = layers.Add()([stem(doors["a"]), layers.Conv2D(6, 3, 2, "same")(doors["b"])])
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(doors, layers.Concatenate()([y, doors["age"]]))


@pytest.mark.parametrize("make", [whole_mean, nested, chain, two_images])
def test_moves_as_if_built_there(make):
    model, there = randomise(make(16)), make(17)
    there.set_weights(model.get_weights())
    result, expected = moved(model, 17), kt.mobile.prepare(there, verbose=False)
    assert isinstance(result, type(model))
    assert compared(result, expected) == 0
    assert kt.mobile.prepare_plan(model, size=17).relative <= TOLERANCE


def test_a_frozen_model_stays_frozen():
    model = whole_mean(16)
    model.trainable = False
    assert not moved(model, 17).trainable_variables


# -- what cannot move -----------------------------------------------------------------


class Positions(layers.Layer):
    """Adds a number for each pixel."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x):
        return x + self.table


def flat(size=16):
    x = image(size)
    return keras.Model(x, layers.Dense(4, name="logits")(layers.Flatten()(stem(x))))


def cut(size=16):
    x = image(size)
    y = layers.Reshape((64, 6), name="rows")(stem(x))
    return keras.Model(x, layers.GlobalAveragePooling1D()(y))


def placed(size=16):
    x = image(size)
    return end(x, Positions(name="places")(stem(x)))


def vectors():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


def sizes():
    a, b = image(16), keras.Input((8, 8, 3))
    return keras.Model([a, b], [stem(a), layers.Conv2D(2, 1)(b)])


STAYS = {
    "flat": (
        flat,
        17,
        r"Dense 'logits' does not fit images of 17 x 17: it was built "
        r"on inputs of shape \(None, 384\) and would read \(None, 486\)",
    ),
    "rows": (cut, 17, r"Reshape 'rows' does not fit .* \(None, 9, 9, 6\)"),
    "positions": (placed, (17, 18), r"Positions 'places' does not fit images of 17 x"),
    "too small": (whole_mean, 0, "positive integer"),
    "a float": (flat, 97.0, "one positive integer or a pair"),
    "three": (flat, (1, 2, 3), "one positive integer or a pair"),
    "truth": (flat, True, "one positive integer or a pair"),
    "no image": (vectors, 17, "has no input of images"),
    "sizes": (sizes, 17, "reads images of several sizes"),
}


@pytest.mark.parametrize("case", STAYS)
def test_can_not_move(case):
    make, size, words = STAYS[case]
    model = make(16) if make is whole_mean else make()
    with pytest.raises(ValueError, match=words):
        kt.mobile.prepare(model, size=size)
    with pytest.raises(ValueError, match=words):
        kt.mobile.prepare_plan(model, size=size)


@pytest.mark.backend_independent(False)
def test_channels_first_can_not_move():
    x = keras.Input((3, 16, 16))
    y = layers.GlobalAveragePooling2D(data_format="channels_first", name="mean")(x)
    with pytest.raises(ValueError, match=r"'mean' of .* has its channels first"):
        kt.mobile.prepare(keras.Model(x, y), size=17)


# -- stock networks --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("MobileNet", 95), ("MobileNetV3Small", 97)],
)
def test_stock_networks_are_those_of_the_size(name, size):
    model, there = randomise(stock(name, 96)), stock(name, size)
    there.set_weights(model.get_weights())
    plan = kt.mobile.prepare_plan(model, size=size)
    assert not plan.refused
    assert plan.exact
    alike(moved(model, size), kt.mobile.prepare(there, verbose=False))


@pytest.mark.slow
def test_mobilenet_pads_by_one_at_any_size():
    """Moved from 96 to 97 it is padded as `same` does, and so has an exact form."""
    model = stock("MobileNet", 96)
    plan = kt.mobile.prepare_plan(model, size=97)
    assert not plan.refused
    assert plan.exact
    assert moved(model, 97).get_layer("conv_dw_2").output.shape[1:3] == (25, 25)
    assert kt.mobile.prepare_plan(stock("MobileNet", 97)).refused
