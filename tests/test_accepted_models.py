"""Models that are right, whatever converters make of their parts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.backend.random_inputs import Vocabulary, make_samples
from keras_tickets.convert.comparison import gap
from keras_tickets.convert.tolerances import Expected, judge

pytestmark = pytest.mark.backend_independent

SUFFIXES = (".tflite", ".onnx")


def of_many_parts() -> keras.Model:
    """Augmentation, constants that are no weights, classes, an input as output."""
    image = keras.Input((6, 6, 3), name="image")
    other = keras.Input((4,), name="other")
    mean = ops.convert_to_tensor(np.array([0.4, 0.5, 0.6], "float32"))
    x = layers.RandomFlip()(image)
    scores = layers.Conv2D(5, 3, name="scores")((x - mean) / 0.25)
    classes = ops.argmax(scores, axis=-1)
    return keras.Model([image, other], [other, scores, classes, scores > 0.0])


def of_open_size() -> keras.Model:
    words = keras.Input((None, 3))
    return keras.Model([words], [layers.Dense(2)(words)])


def of_large_constants() -> keras.Model:
    """A mask of -1e9, beyond float16, and a square root of next to nothing."""
    x = inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(1, 4)(x, x, use_causal_mask=True)
    return keras.Model(inputs, layers.UnitNormalization()(x))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_that_converters_stumble_over(suffix, tmp_path):
    kt.export(of_many_parts(), tmp_path / f"m{suffix}", verbose=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", [lambda x: x, lambda x: [x]], ids=["array", "list"])
def test_sizes_that_are_open_take_those_of_the_samples(suffix, form, tmp_path):
    rows = np.random.default_rng(0).normal(size=(4, 20, 3)).astype("float32")
    path = tmp_path / f"m{suffix}"
    report = kt.export(of_open_size(), path, samples=form(rows), verbose=False)
    assert set(report.comparisons) == {"random", "real"}


def test_constants_beyond_float16_do_no_harm(tmp_path):
    path = tmp_path / "m.tflite"
    kt.export(of_large_constants(), path, precision="float16", verbose=False)


# What is compared, and how


def spec(*shape, dtype="float32"):
    return keras.InputSpec(shape=(1, *shape), dtype=dtype)


def test_random_images_of_whole_numbers_have_all_values():
    """A file that cut values at 2 would else look right."""
    (sample,) = make_samples(Vocabulary(), [spec(16, 16, 3, dtype="uint8")], 1)
    assert sample[0].max() > 200
    (sample,) = make_samples(Vocabulary(), [spec(16, dtype="int32")], 1)
    assert set(np.unique(sample[0])) == {0, 1}


def test_open_sizes_follow_real_inputs():
    real = [[np.zeros((1, size, 3), "float32")] for size in (5, 7)]
    samples = make_samples(Vocabulary(), [spec(None, 3)], 3, real)
    assert [sample[0].shape[1] for sample in samples] == [5, 7, 5]


@pytest.mark.parametrize("dtype", ["int32", "bool", "float32"])
def test_classes_are_right_or_wrong_and_not_near(dtype):
    """Class 9 in place of 0 at one of 200 pixels is no relative difference of one."""
    wanted = np.zeros((1, 200)).astype(dtype)
    found = wanted.copy()
    found[0, 7] = 9
    assert gap([wanted], [found]).differing == 1

    def judged(limit):
        expected = Expected("Keras", "'m'", ["classes"], [[wanted]])
        return judge(expected, [[found]], {"real": 1}, {"real": limit})

    judged(0.01)
    with pytest.raises(RuntimeError, match="does not compute"):
        judged(0.001)


def test_measurements_are_held_to_their_size():
    wanted = np.linspace(0, 1, 200)[None]
    found = wanted.copy()
    found[0, 7] = 9
    assert gap([wanted], [found]).differing is None
