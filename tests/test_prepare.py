"""Preparing: the same outputs, rewrites by name, reasons, and what runs sparse."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import BACKEND, covering
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops
from places import available
from zoo import randomise

import keras_tickets as kt
from keras_tickets.mobile.preparing.building import build
from keras_tickets.mobile.preparing.rewrites import REWRITES
from keras_tickets.mobile.preparing.rewrites.kernel_padding import Axis

pytestmark = pytest.mark.backend_independent

TOLERANCE = 1e-5


def compared(model: keras.Model, other: keras.Model) -> float:
    """The largest difference of outputs, over the largest output."""
    rng = np.random.default_rng(1)
    samples = keras.tree.map_structure(
        lambda x: rng.uniform(-1, 1, (2, *x.shape[1:])).astype("float32"),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )
    first, second = (
        [ops.convert_to_numpy(y) for y in keras.tree.flatten(m(samples))]
        for m in (model, other)
    )
    assert [y.shape for y in first] == [y.shape for y in second]
    assert all(np.std(y) > 0 for y in first)
    pairs = zip(first, second, strict=True)
    return max(float(abs(a - b).max() / abs(a).max()) for a, b in pairs)


def prepared(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """The prepared model and the names of the rewrites, checked to be exact."""
    randomise(model)
    before = [ops.convert_to_numpy(v) for v in model.variables]
    plan = kt.mobile.prepare_plan(model)
    result = build(plan.graph)
    assert compared(model, result) <= TOLERANCE
    assert plan.relative <= TOLERANCE
    assert all(step.relative <= TOLERANCE for step in plan.done)
    names = [getattr(m, "output_names", None) for m in (model, result)]
    assert names[0] == names[1]
    if not isinstance(model, keras.Sequential):  # Keras names its input anew
        # As after saving and loading: an input without a name has its layer's.
        doors = [x for x in model.layers if isinstance(x, layers.InputLayer)]
        assert [x.name for x in result.inputs] == [door.name for door in doors]
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))
    again = kt.mobile.prepare_plan(result)
    assert not again.done, "what is prepared is left alone"
    return result, sorted({step.rewrite for step in plan.done})


# -- one network for each rewrite ------------------------------------------------------


def image(size: int = 10, channels: int = 3) -> keras.KerasTensor:
    return keras.Input((size, size, channels), name="image")


def stem(x):
    x = layers.Conv2D(6, 3, strides=2, name="stem")(layers.ZeroPadding2D(1)(x))
    return layers.ReLU()(x)


def end(x, y) -> keras.Model:
    return keras.Model(x, layers.Dense(4, name="logits")(pooled(y)))


def pooled(y):
    return layers.GlobalAveragePooling2D()(y)


def whole_mean():
    x = image()
    y = layers.AveragePooling2D(5, name="mean")(stem(x))
    return keras.Model(x, layers.Dense(4)(layers.Flatten()(y)))


def convolution_head():
    x = image()
    y = layers.GlobalAveragePooling2D(keepdims=True)(stem(x))
    y = layers.Conv2D(8, 1, activation="relu")(layers.Dropout(0.5)(y))
    y = layers.BatchNormalization(axis=3)(layers.Conv2D(4, 1, use_bias=False)(y))
    return keras.Model(x, layers.Reshape((4,))(layers.Activation("tanh")(y)))


def head_of_pixels():
    x = image()
    y = layers.GlobalAveragePooling2D(keepdims=True)(stem(x))
    return keras.Model(x, layers.Conv2D(4, 1, name="logits")(y))


def normed_head_of_pixels():
    model = head_of_pixels()
    y = layers.BatchNormalization(name="norm")(model.output)
    return keras.Model(model.input, y)


def head_pooled_twice():
    x = image()
    y = layers.GlobalAveragePooling2D(keepdims=True)(stem(x))
    return keras.Model(x, pooled(layers.Conv2D(4, 1)(y)))


def dense_squeeze():
    x = image()
    y = stem(x)
    z = layers.Dense(6, "sigmoid")(layers.Dense(3, "relu")(pooled(y)))
    return end(x, layers.Multiply()([y, layers.Reshape((1, 1, 6))(z)]))


def reshaped_squeeze():
    x = image()
    y = stem(x)
    z = layers.Reshape((1, 1, 6))(pooled(y))
    z = layers.Conv2D(6, 1, activation="sigmoid")(z)
    return end(x, layers.Multiply()([y, z]))


def gated(gate, last=True, **options):
    def make():
        x = image()
        y = stem(x)
        z = layers.GlobalAveragePooling2D(keepdims=True)(y)
        z = gate(layers.Conv2D(6, 1, **options)(z))
        y = layers.Multiply(name="gated")([y, z])
        return end(x, layers.Conv2D(8, 1)(y) if last else y)

    return make


def by_operators(z):
    return layers.ReLU(6.0)(z + 3.0) * (1.0 / 6.0)


def by_batch_norm(z):
    return ops.relu6(3.0 + layers.BatchNormalization()(z)) / 6


def own_swish():
    x = image()
    y = layers.Conv2D(8, 1)(stem(x))
    return end(x, layers.Multiply()([y, layers.Activation("hard_sigmoid")(y)]))


def scaled(layer, behind=lambda y: y):
    def make():
        x = image()
        return end(x, behind(layer(stem(x))))

    return make


def norm_after_add():
    x = image()
    y = stem(x)
    y = layers.BatchNormalization()(layers.Add()([y, layers.Conv2D(6, 1)(y)]))
    return end(x, layers.ReLU()(y))


def strided_shortcut():
    x = image(21)
    y = stem(x)
    z = layers.Conv2D(8, 1, strides=2, use_bias=False, name="shortcut")(y)
    return end(x, layers.ReLU()(z))


def small_stem(size, channels, **options):
    def make():
        x = image(size, channels)
        y = layers.Conv2D(6, **options, name="stem")(x)
        return end(x, layers.Conv2D(8, 1)(layers.ReLU()(y)))

    return make


def in_the_middle(layer, size=22):
    def make():
        x = image(size)
        y = layers.Conv2D(8, 1)(layer(stem(x)))
        return end(x, y)

    return make


def depthwise(kernel=3, strides=2, padding="same", **options):
    return layers.DepthwiseConv2D(kernel, strides, padding, name="dw", **options)


def padded_by_one(y):
    return depthwise(padding="valid")(layers.ZeroPadding2D(((0, 1), (0, 1)))(y))


SAME = {"kernel_size": 3, "strides": 2, "padding": "same"}


def series(length: int = 33, channels: int = 3) -> keras.KerasTensor:
    return keras.Input((length, channels), name="series")


def series_stem(x, kernel=3, **options):
    options = {"padding": "same", "name": "stem", **options}
    y = layers.Conv1D(6, kernel, strides=2, use_bias=False, **options)(x)
    return layers.ReLU(6.0)(layers.BatchNormalization(axis=2)(y))


def series_end(x, y) -> keras.Model:
    y = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 1, name="mix")(y))
    return keras.Model(x, layers.Dense(4, name="logits")(y), name="signals")


def series_network(length=33, channels=3, width=8) -> keras.Model:
    x = series(length, channels)
    y = layers.DepthwiseConv1D(3, padding="same", name="dw")(series_stem(x))
    y = layers.Conv1D(width, 1, activation="relu", name="first")(y)
    y = layers.DepthwiseConv1D(5, 2, use_bias=False)(layers.ZeroPadding1D(2)(y))
    y = layers.Activation("silu")(layers.BatchNormalization(scale=False)(y))
    y = layers.Conv1D(width, 1, name="second")(layers.SpatialDropout1D(0.5)(y))
    z = layers.Dropout(0.5)(y)
    z = layers.SeparableConv1D(width, 3, 1, "same", name="third")(z)
    return series_end(x, ops.relu6(layers.Add()([y, z])))


def of_series(layer, length=33):
    def make():
        x = series(length)
        return series_end(x, layer(series_stem(x)))

    return make


def gate_of_vectors(y):
    z = layers.GlobalAveragePooling1D()(y)
    z = layers.Dense(6, "sigmoid")(layers.Dense(3, "relu")(z))
    return layers.Multiply()([y, layers.Reshape((1, 6))(z)])


def gate_of_series(y):
    z = layers.GlobalAveragePooling1D(keepdims=True)(y)
    return layers.Multiply()([layers.Conv1D(6, 1, activation="sigmoid")(z), y])


def padded_series_stem():
    x = series()
    y = layers.ZeroPadding1D((1, 1))(layers.Rescaling(0.5)(x))
    return series_end(x, series_stem(y, padding="valid"))


def samples():
    x = keras.Input((66,), name="samples")
    return series_end(x, series_stem(layers.Reshape((33, 2), name="rows")(x)))


def series_out():
    x = series()
    y = layers.Conv1D(4, 1, name="each")(series_stem(x))
    return keras.Model(x, [y, layers.ReLU(name="positive")(y)])


def mean_of_series():
    x = series()
    y = layers.AveragePooling1D(17, name="mean")(series_stem(x))
    return keras.Model(x, layers.Dense(4)(layers.Flatten()(y)))


PADDED = ["centred_padding", "image_of_series"]

EXACT = {
    "series": (series_network, [*PADDED, "split_separable"]),
    "series of one channel": (
        lambda: series_network(channels=1),
        ["centred_padding", "colour_stem", "image_of_series", "split_separable"],
    ),
    "even series": (lambda: of_series(lambda y: y, 34)(), ["image_of_series"]),
    "padded series": (padded_series_stem, PADDED),
    "samples": (samples, ["centred_padding", "colour_stem", "image_of_series"]),
    "series of causes": (of_series(layers.Conv1D(6, 3, padding="causal")), PADDED),
    "series with holes": (
        of_series(layers.DepthwiseConv1D(3, padding="same", dilation_rate=2)),
        PADDED,
    ),
    "dense layer on a series": (of_series(layers.Dense(5, "relu")), PADDED),
    "joined series": (
        of_series(lambda y: layers.Concatenate(axis=2)([y, 2.0 * y])),
        ["centred_padding", "folded_scale", "image_of_series"],
    ),
    "pooled series": (
        of_series(layers.MaxPooling1D(1, 2)),
        [*PADDED, "sampled_pixels"],
    ),
    "means of a series": (of_series(layers.AveragePooling1D(2)), PADDED),
    "squeezed series": (of_series(gate_of_vectors), [*PADDED, "pixel_squeeze"]),
    "gated series": (of_series(gate_of_series), PADDED),
    "mean over a series": (
        mean_of_series,
        ["centred_padding", "dense_head", "global_mean", "image_of_series"],
    ),
    "series out": (series_out, PADDED),
    "separable": (
        in_the_middle(layers.SeparableConv2D(6, 3, 2, "same", activation="relu")),
        ["centred_padding", "split_separable"],
    ),
    "mean over the image": (whole_mean, ["dense_head", "global_mean"]),
    "1x1 head": (convolution_head, ["dense_head"]),
    "1x1 head, pixels out": (head_of_pixels, ["dense_head"]),
    "normed head, pixels out": (normed_head_of_pixels, ["dense_head"]),
    "1x1 head, pooled": (head_pooled_twice, ["dense_head"]),
    "dense squeeze": (dense_squeeze, ["pixel_squeeze"]),
    "reshaped squeeze": (reshaped_squeeze, ["pixel_squeeze"]),
    "gate of operators": (gated(by_operators), ["relu6_gate"]),
    "gate of BatchNorm": (gated(by_batch_norm), ["relu6_gate"]),
    "gate layer": (gated(layers.Activation("hard_sigmoid")), ["relu6_gate"]),
    "gate before the mean": (gated(by_operators, last=False), ["relu6_gate"]),
    "gate in the layer": (
        gated(lambda z: z, activation="hard_sigmoid", use_bias=False),
        ["relu6_gate"],
    ),
    "hard swish by hand": (own_swish, ["relu6_gate"]),
    "norm after add": (norm_after_add, ["folded_scale"]),
    "norm before 1x1": (
        scaled(layers.BatchNormalization(), layers.Conv2D(5, 1, use_bias=False)),
        ["folded_scale"],
    ),
    "norm before depthwise": (
        scaled(layers.BatchNormalization(), layers.DepthwiseConv2D(3, padding="same")),
        ["folded_scale"],
    ),
    "norm before groups": (
        scaled(layers.Rescaling(0.5), layers.Conv2D(6, 1, groups=2)),
        ["folded_scale"],
    ),
    "rescaled image": (scaled(layers.Rescaling(1 / 3, 0.5)), ["folded_scale"]),
    "number": (scaled(lambda y: y * 2.0 - 1.0), ["folded_scale"]),
    "strided 1x1": (strided_shortcut, ["split_stride"]),
    "pooled pixels": (in_the_middle(layers.MaxPooling2D(1, 2)), ["sampled_pixels"]),
    "means of one pixel": (
        in_the_middle(layers.AveragePooling2D(1, 2, "same"), 24),
        ["sampled_pixels"],
    ),
    "grey stem": (
        small_stem(9, 1, **SAME),
        ["centred_padding", "colour_stem"],
    ),
    "two channels": (
        small_stem(9, 2, **SAME),
        ["centred_padding", "colour_stem"],
    ),
    "odd stem": (small_stem(9, 3, **SAME), ["centred_padding"]),
    "patches of two": (
        small_stem(10, 3, kernel_size=2, strides=2),
        ["centred_padding"],
    ),
    "even depthwise": (in_the_middle(depthwise(), 24), ["centred_padding"]),
    "odd depthwise": (in_the_middle(depthwise()), ["centred_padding"]),
    "odd depthwise of 5": (in_the_middle(depthwise(5)), ["centred_padding"]),
    "padded even depthwise": (in_the_middle(padded_by_one, 24), ["centred_padding"]),
    "depthwise with holes": (
        in_the_middle(depthwise(strides=1, dilation_rate=2)),
        ["centred_padding"],
    ),
    "depthwise column": (
        in_the_middle(depthwise((3, 1), 1)),
        ["centred_padding"],
    ),
}


# Other ways to write what another case holds: the rules tell them apart in tables.
ALIKE = ("even series", "padded series", "series of causes", "series with holes")
ALIKE += ("dense layer on a series", "means of a series", "gated series", "series out")
ALIKE += ("mean over a series", "samples", "1x1 head, pixels out", "1x1 head, pooled")
ALIKE += ("reshaped squeeze", "gate of BatchNorm", "gate layer", "gate before the mean")
ALIKE += ("norm before groups", "rescaled image", "means of one pixel", "two channels")
ALIKE += ("patches of two", "odd depthwise", "padded even depthwise")


@pytest.mark.parametrize(
    "case", covering(EXACT, quick=[case for case in EXACT if case not in ALIKE])
)
def test_exact(case):
    make, rewrites = EXACT[case]
    _, found = prepared(make())
    assert found == rewrites


def test_each_exact_rewrite_has_a_case():
    covered = {name for _, names in EXACT.values() for name in names}
    assert covered == {rewrite.name for rewrite in REWRITES if rewrite.exact}


@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 3),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    large=st.sampled_from([3, 5]),
)
def test_where_a_kernel_stands_in_a_larger_one(
    size, kernel, stride, before, after, large
):
    """It computes the same there, and where it does not there is no such place."""
    rng = np.random.default_rng(0)
    x, taps = rng.random(size), rng.random(kernel)
    expected = convolved(np.pad(x, (before, after)), taps, stride)
    centred = np.pad(x, large // 2)
    same = []
    for offset in range(large - kernel + 1):
        placed = np.pad(taps, (offset, large - kernel - offset))
        found = convolved(centred, placed, stride)
        if found.shape == expected.shape and np.allclose(found, expected):
            same.append(offset)
    offset = Axis(size, kernel, stride, before, after).offset(large)
    assert (offset in same) if offset is not None else (not same or len(expected) < 2)


def convolved(x: np.ndarray, taps: np.ndarray, stride: int) -> np.ndarray:
    starts = range(0, len(x) - len(taps) + 1, stride)
    return np.array([x[i : i + len(taps)] @ taps for i in starts])


# -- what is not exact, and what is left -----------------------------------------------


@pytest.mark.backend_independent
def test_inexact_only_when_allowed():
    model = small_stem(10, 3, **SAME)()
    _, found = prepared(model)
    assert found == []
    (left,) = kt.mobile.prepare_plan(model).left
    assert left.layer == "stem"
    assert "pads 10 pixels by 0 and 1" in left.reason
    plan = kt.mobile.prepare_plan(model, inexact=True)
    assert [(step.rewrite, step.exact) for step in plan.done] == [
        ("shifted_padding", False)
    ]
    assert plan.ready
    assert not plan.exact
    assert plan.done[0].relative > TOLERANCE
    result = kt.mobile.prepare(model, inexact=True, verbose=False)
    np.testing.assert_array_equal(
        result.get_layer("stem").kernel, model.get_layer("stem").kernel
    )


@pytest.mark.backend_independent
@pytest.mark.slow
def test_inexact_where_the_image_grows():
    """MobileNet pads odd images by zero and one: one output more."""
    model = in_the_middle(padded_by_one)()
    plan = kt.mobile.prepare_plan(model, inexact=True)
    assert plan.ready
    assert [step.layer for step in plan.done] == ["dw"]


KEPT_SIZES = [
    ("even depthwise", "own_size", 3),
    ("padded even depthwise", "own_size", 3),
    # Exact at their own sizes.
    ("odd depthwise", "centred_padding", 3),
    ("odd depthwise of 5", "centred_padding", 5),
    ("depthwise with holes", "centred_padding", 5),
]


@pytest.mark.parametrize(
    ("case", "rewrite", "size"),
    covering(KEPT_SIZES, quick=[KEPT_SIZES[0]]),
)
def test_faster_keeps_the_size_of_a_kernel(case, rewrite, size):
    model = EXACT[case][0]()
    plan = kt.mobile.prepare_plan(model, inexact="faster")
    assert plan.ready
    assert [step.rewrite for step in plan.done] == [rewrite]
    assert plan.exact == (rewrite == "centred_padding")
    assert kt.mobile.prepare_plan(model, inexact=True).exact
    result = kt.mobile.prepare(model, inexact="faster", verbose=False)
    assert result.get_layer("dw").kernel_size == (size, size)


@pytest.mark.backend_independent
@pytest.mark.slow
def test_faster_moves_also_what_has_no_exact_form():
    plan = kt.mobile.prepare_plan(small_stem(10, 3, **SAME)(), inexact="faster")
    assert [step.rewrite for step in plan.done] == ["shifted_padding"]
    assert plan.ready


@pytest.mark.parametrize("inexact", ["fast", 2, None])
def test_unknown_word_for_inexact(inexact):
    with pytest.raises(ValueError, match=f"inexact={inexact!r} is unknown. Pass False"):
        kt.mobile.prepare_plan(small_stem(10, 3, **SAME)(), inexact=inexact)


class Own(layers.Layer):
    def call(self, x):
        return x[:, ::-1]


def times_its_mean(y):
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(y)
    return layers.Multiply()([y, mean])


LEFT = {
    "mean as an image": (times_its_mean, "mean", "keeps the axes"),
    "depthwise of 7": (depthwise(7), "dw", "kernel of 7"),
    "even depthwise of 5": (depthwise(5), "dw", "pads 12 pixels by 1 and 2"),
    "multiplier": (depthwise(depth_multiplier=2), "dw", "depth multiplier is not 1"),
    "slopes": (layers.PReLU(name="slopes"), "slopes", "(MUL)"),
    "maximum": (layers.MaxPooling2D(name="max"), "max", "(MAX_POOL_2D)"),
    "3x3": (layers.Conv2D(6, 3, name="c"), "c", "3x3 convolution without strides"),
    "what XNNPACK does not run": (ops.sign, "Sign", "does not run it (SIGN)"),
    "by three": (layers.Conv2D(6, 1, 3, name="c"), "c", "has strides (3, 3)"),
    "a class of its own": (Own(name="own"), "own", "(STRIDED_SLICE)"),
    "joined": (lambda y: layers.Concatenate(name="j")([y, y]), "j", "(CONCATENATION)"),
}


QUICK_LEFT = ("mean as an image", "even depthwise of 5", "joined")
QUICK_LEFT += ("what XNNPACK does not run",)


@pytest.mark.parametrize("case", covering(LEFT, quick=QUICK_LEFT))
def test_left_alone_with_a_reason(case):
    layer, name, reason = LEFT[case]
    plan = kt.mobile.prepare_plan(in_the_middle(layer, 24)())
    assert [left.layer for left in plan.left] == [name]
    assert reason in plan.left[0].reason
    assert not plan.ready
    assert name in str(plan)


READY = ["separable", "gate layer", "norm before 1x1", "strided 1x1", "grey stem"]


@pytest.mark.parametrize("case", covering(READY, quick=["separable"]))
def test_nothing_is_left(case):
    plan = kt.mobile.prepare_plan(EXACT[case][0]())
    assert plan.ready, plan


def test_what_cannot_be_copied_is_said():
    plan = kt.mobile.prepare_plan(in_the_middle(layers.Lambda(ops.sign))())
    (left,) = plan.left
    assert "cannot be copied from its config" in left.reason


@pytest.mark.backend_independent
def test_without_1x1_convolutions_nothing_is_ready():
    plan = kt.mobile.prepare_plan(keras.Sequential([image(), layers.Flatten()]))
    (left,) = plan.left
    assert "has no 1x1 convolutions" in left.reason


def test_gate_where_nothing_takes_the_factor():
    x = image()
    y = stem(x)
    y = layers.Multiply()([y, by_operators(layers.Conv2D(6, 1)(y))])
    _, found = prepared(end(x, layers.LeakyReLU()(y)))
    assert found == ["folded_scale"], "slower, and as exact"


def fused_gate(y):
    return layers.Conv2D(6, 1, activation="hard_sigmoid")(y)


def gate_of_layers(y):
    return layers.Activation("hard_sigmoid")(layers.Conv2D(6, 1, name="source")(y))


@pytest.mark.parametrize("gate", [fused_gate, gate_of_layers, by_operators])
def test_gates_that_the_model_returns_stay(gate):
    x = image()
    y = stem(x)
    z = gate(y)
    whole = end(x, layers.Conv2D(8, 1)(layers.Multiply()([y, z])))
    outputs = [whole.output, z]
    if gate is gate_of_layers:
        outputs.append(whole.get_layer("source").output)
    _, found = prepared(keras.Model(x, outputs))
    assert "relu6_gate" not in found


def test_a_gate_times_itself_is_no_gate():
    x = image()
    z = fused_gate(stem(x))
    _, found = prepared(end(x, layers.Conv2D(8, 1)(layers.Multiply()([z, z]))))
    assert not found


def test_heads_with_statistics_of_their_own_are_left_alone():
    x = image()
    y = layers.GlobalAveragePooling2D(keepdims=True)(stem(x))
    norm = layers.Normalization(mean=[1.0] * 4, variance=[2.0] * 4)
    _, found = prepared(keras.Model(x, norm(layers.Conv2D(4, 1)(y))))
    assert found == ["folded_scale"]


@pytest.mark.backend_independent(False)
@pytest.mark.skipif(BACKEND == "tensorflow", reason="It has none on CPUs.")
def test_channels_first_is_left_alone():
    x = keras.Input((3, 9, 9))
    first = {"data_format": "channels_first"}
    y = layers.Conv2D(8, 3, 2, **first)(x)
    y = layers.Conv2D(8, 1, **first)(layers.Rescaling(0.5)(y))
    plan = kt.mobile.prepare_plan(keras.Model(x, y))
    assert not plan.ready


@pytest.mark.backend_independent
def test_an_open_size_is_told():
    x = keras.Input((None, None, 3))
    plan = kt.mobile.prepare_plan(end(x, depthwise(padding="valid")(stem(x))))
    assert "size is not known" in plan.left[0].reason


@pytest.mark.backend_independent
@pytest.mark.slow
def test_shared_layers_are_left_alone():
    x = image(44)
    shared = depthwise()
    y = shared(layers.Conv2D(6, 1)(shared(stem(x))))
    plan = kt.mobile.prepare_plan(end(x, y))
    assert not plan.done
    assert [left.reason for left in plan.left] == ["is shared by 2 calls"]


# -- series ---------------------------------------------------------------------------


@pytest.mark.backend_independent
def test_a_series_is_an_image_from_the_stem_to_the_pooling():
    model = series_network()
    result, _ = prepared(model)
    assert kt.mobile.prepare_plan(model).ready
    names = [layer.name for layer in result.layers]
    assert names[:4] == ["series", "stem_image", "stem_pad", "stem"]
    assert not [x for x in result.layers[2:] if type(x).__name__.endswith("1D")]
    assert sum(isinstance(x, layers.Reshape) for x in result.layers) == 1
    assert {"dw", "first", "second", "third", "mix", "logits"} <= set(names)


NO_WAY_IN = {
    "many channels": ({"channels": 40}, {}, "series of 40 channels"),
    "a wide kernel": ({}, {"kernel": 9}, "a kernel of 9"),
}


@pytest.mark.parametrize("case", covering(NO_WAY_IN, quick=["a wide kernel"]))
def test_a_series_without_a_way_in_stays(case):
    shape, options, reason = NO_WAY_IN[case]
    x = series(**shape)
    model = series_end(x, series_stem(x, **options))
    plan = kt.mobile.prepare_plan(model)
    assert not plan.done
    assert plan.left[0].layer == "stem"
    assert reason in plan.left[0].reason


@pytest.mark.backend_independent
@pytest.mark.slow
def test_shared_layers_of_a_series_stay():
    x = series()
    shared = layers.DepthwiseConv1D(3, padding="same", name="shared")
    result, found = prepared(
        series_end(x, shared(layers.ReLU()(shared(series_stem(x)))))
    )
    assert found == PADDED
    plan = kt.mobile.prepare_plan(result)
    assert "shared" in [left.layer for left in plan.left]


MIXED = ("first", "second", "third", "mix")


def pruned(model: keras.Model) -> kt.Ticket:
    mixed = [v for v in model.trainable_variables if v.path.startswith(MIXED)]
    kernels = [v for v in mixed if v.name in ("kernel", "pointwise_kernel")]
    ticket = kt.wrap(model, kt.Magnitude(0.8, "uniform"), only=kernels)
    ticket.draw(verbose=0)
    return ticket


def sparse_layers(ticket: kt.Ticket) -> int:
    return sum(layer.runs == "sparse" for layer in kt.diagnose(ticket).layers)


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("place", ["arm64", "wasm"])
def test_series_run_sparse(place):
    available(place, ".tflite")
    model = randomise(series_network(length=129, width=64))
    assert not sparse_layers(pruned(model))
    ticket = pruned(kt.mobile.prepare(model, verbose=False))
    assert sparse_layers(ticket) == len(MIXED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")
        kt.export(ticket, path, verbose=False)
        assert kt.mobile.sparse_path(path, on=place).nodes == len(MIXED)
        assert kt.verify(path, ticket, on=place).max_rel <= TOLERANCE


# -- kinds of models ------------------------------------------------------------------


def base(size: int = 17) -> keras.Model:
    x = keras.Input((size, size, 3), name="pixels")
    y = layers.Conv2D(6, 3, 2, "same", use_bias=False, name="stem")(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(y))
    y = layers.DepthwiseConv2D(3, 2, "same", name="dw")(y)
    return keras.Model(x, layers.Conv2D(8, 1, name="mix")(y), name="base")


@pytest.mark.backend_independent(False)
def test_nested_model():
    inner = base()
    inner.trainable = False
    x = image(17)
    y = layers.GlobalAveragePooling2D(keepdims=True)(inner(layers.Rescaling(0.5)(x)))
    result, found = prepared(
        keras.Model(x, layers.Flatten()(layers.Conv2D(4, 1, name="top")(y)))
    )
    assert found == ["centred_padding", "dense_head"]
    nested = result.get_layer("base")
    assert not nested.trainable
    assert not nested.get_layer("mix").trainable
    assert nested.get_layer("stem").padding == "valid"
    assert isinstance(result.get_layer("top"), layers.Dense)
    plan = kt.mobile.prepare_plan(keras.Model(x, inner(x)))
    assert [step.layer for step in plan.done] == ["base/stem", "base/dw"]


def test_nested_model_called_twice():
    inner = base()
    a, b = (keras.Input((17, 17, 3), name=name) for name in "ab")
    joined = layers.Concatenate()([pooled(inner(a)), pooled(inner(b))])
    result, found = prepared(keras.Model([a, b], layers.Dense(3)(joined)))
    assert found == ["centred_padding"]
    assert len(result.get_layer("base")._inbound_nodes) == 2


def test_nested_model_of_open_size_is_known_by_its_call():
    inner = base(None)
    x = image(17)
    _, found = prepared(end(x, inner(x)))
    assert found == ["centred_padding"]
    assert "size is not known" in kt.mobile.prepare_plan(base(None)).refused["stem"]


def test_nested_model_of_two_sizes():
    inner = base(None)
    a, b = image(17), keras.Input((16, 16, 3))
    model = keras.Model([a, b], [pooled(inner(a)), pooled(inner(b))])
    with pytest.raises(ValueError, match="'base' is called on inputs of shape"):
        kt.mobile.prepare(model)


def test_sequential_stays_sequential():
    model = keras.Sequential(
        [
            keras.Input((17, 17, 3)),
            layers.Conv2D(6, 3, 2, "same", name="stem"),
            layers.BatchNormalization(),  # is called with a mask, of None
            layers.ReLU(),
            layers.Conv2D(8, 1, name="mix"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ],
        name="chain",
    )
    result, _ = prepared(model)
    assert isinstance(result, keras.Sequential)
    assert [layer.name for layer in result.layers[:2]] == ["stem_pad", "stem"]


def test_several_outputs_by_name():
    x = image(17)
    y = base()(x)
    z = layers.GlobalAveragePooling2D(keepdims=True)(y)
    outputs = {"a": pooled(y), "b": layers.Conv2D(3, 1, name="b")(z)}
    result, _ = prepared(keras.Model({"image": x}, outputs))
    assert set(result.output) == {"a", "b"}


def test_mixed_precision():
    x = image(17)
    conv = layers.Conv2D(6, 3, 2, "same", dtype="mixed_bfloat16", name="stem")
    y = layers.DepthwiseConv2D(3, 2, "same", dtype="mixed_bfloat16", name="dw")(conv(x))
    model = randomise(end(x, y))
    result = kt.mobile.prepare(model, verbose=False)
    for name in ("stem", "stem_pad", "dw", "dw_pad"):
        assert result.get_layer(name).dtype_policy.name == "mixed_bfloat16"
    assert compared(model, result) <= 2e-2


@pytest.mark.backend_independent(False)
def test_the_result_trains_and_saves(tmp_path):
    result, _ = prepared(gated(by_operators)())
    result.compile("sgd", "mse")
    result.fit(np.ones((2, 10, 10, 3)), np.ones((2, 4)), verbose=0)
    result.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert compared(result, loaded) == 0


# -- bad input ------------------------------------------------------------------------


def test_bad_input():
    class Own(keras.Model):
        def call(self, x):
            return x

    own = Own()
    own.build((None, 3))
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    ticket = kt.wrap(plain, kt.Magnitude(0.5))
    for model, error, words in (
        ("model", TypeError, "Expected a keras.Model"),
        (keras.Sequential([layers.Dense(2)]), ValueError, "is not built"),
        (own, ValueError, "has no graph of layers"),
        (ticket, ValueError, "Prepare it first"),
    ):
        with pytest.raises(error, match=words):
            kt.mobile.prepare(model)


# -- stock networks -------------------------------------------------------------------

# The others, and how fast they run: `benchmarks/mobile_stock.py`.
STOCK = {
    ("MobileNet", 95): True,
    ("MobileNetV3Small", 97): True,
    ("EfficientNetB0", 97): True,
    ("ResNet50V2", 96): False,
}


def stock(name: str, size: int) -> keras.Model:
    return getattr(keras.applications, name)(
        input_shape=(size, size, 3),
        weights=None,
        classes=10,
        classifier_activation=None,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), STOCK)
def test_stock_networks(name, size):
    model = stock(name, size)
    _, found = prepared(model)
    assert found
    assert kt.mobile.prepare_plan(model).ready is STOCK[name, size]


@pytest.mark.lab
@pytest.mark.slow
def test_every_pruned_convolution_runs_sparse():
    available("arm64", ".tflite")
    # With random statistics what is kept would drown.
    ready = kt.mobile.prepare(stock("MobileNetV2", 97), verbose=False)
    pointwise = [
        layer
        for layer in ready.layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
    ]
    ticket = kt.wrap(ready, kt.Magnitude(0.9, "uniform"), only=pointwise)
    ticket.draw()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")
        kt.export(ticket, path, verbose=False)
        assert kt.mobile.sparse_path(path).nodes == len(pointwise) >= 13
        assert kt.verify(path, ticket, on="arm64").max_rel <= TOLERANCE
