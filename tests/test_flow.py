"""The linearised network: conservation, range, every kind of layer, cuts."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import zoo
from keras import layers, ops

import keras_tickets as kt
from keras_tickets import flow, scores
from keras_tickets.kernels import find_kernels

BACKEND = keras.backend.backend()


def scored(model: keras.Model, masks=None, kernels=None):
    """Return log10 R and each kernel's scores by its layer's name, scaled to R."""
    kernels = tuple(kernels or kt.wrap(model).kernels)
    score = scores.SynFlow().prepare(scores.Task(model, kernels))
    masks = masks or [np.ones(kernel.shape, bool) for kernel in kernels]
    result = score([ops.convert_to_tensor(mask) for mask in masks])
    values = [ops.convert_to_numpy(v).astype("float64") for v in result.values]
    names = [f"{k.layer.name}/{k.variable.name}" for k in kernels]
    return result.measure, dict(zip(names, values, strict=True))


def shares(model: keras.Model) -> dict[str, float]:
    """Return the flow through each kernel, as a fraction of that through the last."""
    _, values = scored(model)
    total = list(values.values())[-1].sum()
    return {name: float(value.sum() / total) for name, value in values.items()}


# -- the published example ---------------------------------------------------------


@pytest.fixture
def float64():
    if BACKEND == "torch":
        pytest.skip("Keras has no float64 on torch")
    before = keras.config.floatx(), keras.config.dtype_policy()
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", False)


def golden(activation="relu", head="softmax") -> keras.Model:
    """The 4-3-3-2 network with W_l[o, i] = ((7 o + 3 i + 5 l) mod 10 - 4.5) / 10."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation, use_bias=False, name="a"),
            layers.Dense(3, activation, use_bias=False, name="b"),
            layers.Dense(2, head, use_bias=False, name="c"),
        ]
    )
    for depth, layer in enumerate(model.layers):
        i, o = np.indices(layer.kernel.shape)
        layer.kernel.assign(((7 * o + 3 * i + 5 * depth) % 10 - 4.5) / 10)
    return model


GOLDEN = {
    "a/kernel": [
        [0.144, 0.048, 0.048, 0.144],
        [0.0875, 0.1575, 0.0525, 0.0525],
        [0.0235, 0.1175, 0.2115, 0.0705],
    ],
    "b/kernel": [[0.042, 0.245, 0.2205], [0.18, 0.03, 0.189], [0.162, 0.075, 0.0135]],
    "c/kernel": [[0.32625, 0.09975, 0.12525], [0.18125, 0.29925, 0.12525]],
}


def check_golden(tolerance: float, **kwargs) -> None:
    log10, values = scored(golden(**kwargs))
    np.testing.assert_allclose(10**log10, 1.157, rtol=tolerance)
    scale = 1.157 / values["c/kernel"].sum()
    for name, expected in GOLDEN.items():
        np.testing.assert_allclose(values[name].T * scale, expected, rtol=tolerance)
        np.testing.assert_allclose(values[name].sum() * scale, 1.157, rtol=tolerance)
    # What flows into a hidden unit flows out of it.
    for before, after in itertools.pairwise(values.values()):
        np.testing.assert_allclose(
            before.sum(axis=0), after.sum(axis=1), rtol=tolerance
        )


@pytest.mark.lowest
def test_golden_scores_in_float64(float64):
    check_golden(1e-12)


@pytest.mark.parametrize(
    ("activation", "head"),
    [
        *(("relu6", "softmax"), ("swish", None), ("gelu", "softmax")),
        *(("tanh", None), ("sigmoid", "softmax")),
    ],
)
def test_golden_scores_whatever_the_activations(activation, head):
    check_golden(1e-5, activation=activation, head=head)


KEPT = {
    (14, 100): [[0, 3, 5, 9, 10, 11], [1, 2, 3, 5], [0, 1, 3, 4]],
    (9, 100): [[5, 9, 10], [1, 2, 5], [0, 3, 4]],
    (14, 1): [[0, 3, 5, 10], [1, 2, 3, 5, 6], [0, 2, 3, 4, 5]],
}


@pytest.mark.parametrize(("keep", "rounds"), sorted(KEPT))
@pytest.mark.lowest
def test_golden_tickets(keep, rounds):
    ticket = kt.wrap(golden(), kt.SynFlow(1 - keep / 27, rounds=rounds))
    ticket.draw(verbose=0)
    kept = [np.flatnonzero(m.T.ravel()).tolist() for m in ticket.mask_set.values()]
    assert kept == KEPT[keep, rounds]


@pytest.mark.parametrize(
    ("keep", "rounds"), [(6, 1), (5, 100), (4, 1), (3, 1), (3, 100)]
)
def test_maximal_critical_compression(keep, rounds):
    """The published code, which prunes ties, empties a layer at each of these."""
    ticket = kt.wrap(golden(), kt.SynFlow(1 - keep / 27, rounds=rounds))
    curve = ticket.draw(verbose=0)
    assert ticket.mask_set.count().kept == keep
    assert curve.measure[-1] > -10


@hypothesis.given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    seed=st.integers(0, 99),
    levels=st.sampled_from([1, 2, 1000]),
    rounds=st.sampled_from([1, 7]),
)
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
def test_one_path_survives_at_any_budget_that_holds_one(widths, seed, levels, rounds):
    """Also with tied weights (few levels), in one round, down to a single path."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((widths[0],))])
    for width in widths[1:]:
        model.add(layers.Dense(width, use_bias=False))
        kernel = model.layers[-1].kernel
        kernel.assign(rng.integers(1, levels + 1, kernel.shape) / levels)
    total = sum(kernel.size for kernel in find_kernels(model))
    for keep in {len(widths) - 1, total // 2}:
        if len(widths) - 1 <= keep < total:
            pruner = kt.SynFlow(1 - keep / total, rounds=rounds)
            ticket = kt.wrap(model, pruner)
            curve = ticket.draw(verbose=0)
            assert ticket.mask_set.count().kept == keep
            assert np.isfinite(curve.measure[-1])


# -- conservation ------------------------------------------------------------------


def small_vgg() -> keras.Model:
    return keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=10)


@pytest.mark.slow
@pytest.mark.backend_independent
def test_vgg16_conserves_the_flow_in_every_layer():
    np.testing.assert_allclose(list(shares(small_vgg()).values()), 1, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.backend_independent
def test_resnet50_conserves_the_flow_over_cuts():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    share = {name.removesuffix("/kernel"): s for name, s in shares(model).items()}
    np.testing.assert_allclose(share["conv1_conv"], 1, rtol=1e-4)
    blocks = sorted({name[:12] for name in share if "block" in name})
    assert len(blocks) == 16
    for block in blocks:
        branch = [share[f"{block}_{i}_conv"] for i in (1, 2, 3)]
        np.testing.assert_allclose(branch, branch[0], rtol=1e-4)
        shortcut = share.get(f"{block}_0_conv")
        if shortcut is None:
            assert branch[0] < 1
        else:
            np.testing.assert_allclose(branch[0] + shortcut, 1, rtol=1e-4)


def image_model(*middle) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="first")(inputs)
    for layer in middle:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, "softmax", name="last")(x))


def squeeze_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(3, 1, activation="swish", name="squeeze")(gate)
    gate = layers.Conv2D(6, 1, activation="sigmoid", name="excite")(gate)
    return layers.Multiply()([x, gate])


def hard_swish_by_hand(x):
    return x * (layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0))


def residual(x):
    return layers.Add()([x, layers.Conv2D(6, 3, padding="same", name="branch")(x)])


def dense_block(x):
    return layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same")(x)])


class Residual(layers.Layer):
    """A layer made of a layer, with arithmetic of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(6, 3, padding="same", name="inside")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return x + 0.5 * ops.silu(self.conv(x))


MIDDLES = {
    "batch_norm": lambda: [layers.BatchNormalization(), layers.ReLU(6.0)],
    "layer_norm": lambda: [layers.LayerNormalization(), layers.Activation("gelu")],
    "group_norm": lambda: [layers.GroupNormalization(2), layers.PReLU()],
    "rms_norm": lambda: [layers.RMSNormalization()],
    "rescaling": lambda: [layers.Rescaling(1 / 255, offset=-1.0)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3, padding="same", activation="relu")],
    "separable": lambda: [layers.SeparableConv2D(5, 3, activation="elu")],
    "transposed": lambda: [layers.Conv2DTranspose(5, 3, strides=2, activation="selu")],
    "pooling": lambda: [
        layers.MaxPooling2D(),
        layers.AveragePooling2D(2),
        layers.UpSampling2D(),
    ],
    "dropout": lambda: [layers.Dropout(0.5), layers.GaussianNoise(1.0)],
    "squeeze_excite": lambda: [squeeze_excite],
    "hard_swish": lambda: [hard_swish_by_hand],
    "residual": lambda: [residual],
    "dense_block": lambda: [dense_block],
    "composite": lambda: [lambda x: Residual()(x)],
    "functions": lambda: [
        ops.silu,
        lambda x: ops.sigmoid(x),
        lambda x: ops.relu6(2 * x - 1),
    ],
    "maximum": lambda: [lambda x: layers.Maximum()([x, layers.ReLU()(x)])],
    "spectral": lambda: [
        lambda x: layers.SpectralNormalization(layers.Conv2D(5, 3, name="s"))(x)
    ],
    "nested": lambda: [
        lambda x: keras.Sequential(
            [keras.Input((8, 8, 6)), layers.Conv2D(5, 3, activation="swish")]
        )(x)
    ],
}


# A rule is made of operations of Keras; one of each kind shows that a backend has them.
EACH_BACKEND = {"batch_norm", "residual", "squeeze_excite", "transposed", "nested"}


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(m, marks=pytest.mark.backend_independent(m not in EACH_BACKEND))
        for m in sorted(MIDDLES)
    ],
)
def test_first_and_last_layer_carry_all_the_flow(middle):
    share = shares(image_model(*MIDDLES[middle]()))
    np.testing.assert_allclose(share["first/kernel"], 1, rtol=1e-4)
    assert all(0 < value <= 1 + 1e-4 for value in share.values())


def test_factors_share_the_flow():
    share = shares(image_model(squeeze_excite))
    # x and its gate have half each; x itself is upstream of both.
    np.testing.assert_allclose(share["squeeze/kernel"], 0.5, rtol=1e-4)
    np.testing.assert_allclose(share["excite/kernel"], 0.5, rtol=1e-4)


@pytest.mark.parametrize("attend", ["multi_head", "grouped"])
@pytest.mark.lowest
def test_attention_conserves_the_flow(attend):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8)(inputs)
    x = layers.Dense(8, name="first")(x)
    layer = {
        "multi_head": lambda: layers.MultiHeadAttention(2, 4),
        "grouped": lambda: layers.GroupQueryAttention(4, 4, 2),
    }[attend]()
    x = layers.LayerNormalization()(layer(x, x))
    x = layers.TimeDistributed(layers.Dense(5, "gelu", name="each"))(x)
    x = layers.GlobalAveragePooling1D()(x)
    share = shares(keras.Model(inputs, layers.Dense(4, "softmax", name="last")(x)))
    third = 1 / 3
    for name, expected in {
        "first/kernel": 1,
        "query/kernel": third,
        "key/kernel": third,
        "value/kernel": third,
        "attention_output/kernel": 1,
        "each/kernel": 1,
    }.items():
        np.testing.assert_allclose(share[name], expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", ["functional", "nested", "several", "subclassed"])
@pytest.mark.lowest
def test_every_model_of_the_zoo_has_a_flow(kind):
    ticket = kt.wrap(zoo.build(kind), kt.SynFlow(0.8, rounds=3))
    curve = ticket.draw(verbose=0)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)
    assert np.isfinite(curve.measure).all()


@pytest.mark.slow
@pytest.mark.backend_independent
@pytest.mark.parametrize("family", ["MobileNetV3Small", "EfficientNetB0"])
def test_families_as_they_are(family):
    """The others, and more rounds: `benchmarks/synflow_families.py`."""
    build = getattr(keras.applications, family)
    model = build(weights=None, input_shape=(64, 64, 3))
    ticket = kt.wrap(model, kt.SynFlow(0.999, rounds=3))
    curve = ticket.draw(verbose=0)
    counted = ticket.mask_set.count()
    assert counted.zeros == round(0.999 * counted.total)
    assert np.isfinite(curve.measure).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.lowest
def test_mixed_precision_does_not_reach_the_flow(policy):
    keras.utils.set_random_seed(0)
    _, expected = scored(image_model(layers.BatchNormalization(), squeeze_excite))
    keras.utils.set_random_seed(0)
    with zoo.dtype_policy(policy):
        _, values = scored(image_model(layers.BatchNormalization(), squeeze_excite))
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5)


# -- invariances -------------------------------------------------------------------


def test_neither_signs_nor_statistics_nor_shifts_matter():
    model = image_model(layers.BatchNormalization(name="bn"), layers.ReLU())
    _, before = scored(model)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(size=6))
            layer.beta.assign(rng.normal(size=6))
            layer.gamma.assign([1, -1, 1, -1, 1, -1])
        elif layer.weights:
            layer.kernel.assign(-ops.convert_to_numpy(layer.kernel))
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    _, after = scored(model)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-5)


def test_zero_initialised_scales_do_not_cut_a_branch():
    norm = layers.BatchNormalization(gamma_initializer="zeros")
    log10, _ = scored(image_model(norm))
    assert np.isfinite(log10)


def test_drawing_leaves_the_model_as_it_is():
    model = image_model(layers.BatchNormalization(), layers.Dropout(0.5), residual)
    names = [layer.name for layer in model.layers]
    values = [ops.convert_to_numpy(v.value).copy() for v in model.variables]
    activations = [getattr(layer, "activation", None) for layer in model.layers]
    kt.wrap(model, kt.SynFlow(0.5, rounds=2)).draw(verbose=0)
    assert names == [layer.name for layer in model.layers]
    assert activations == [getattr(layer, "activation", None) for layer in model.layers]
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), value)


# -- range -------------------------------------------------------------------------


def test_depth_beyond_float32_ranks_as_float64():
    """R is about 1e150 and 1e-70 here; float32 ends at 1e38 and 1e-45."""
    for gain in (20.0, 0.03):
        rng = np.random.default_rng(0)
        depth, width = 80, 8
        model = keras.Sequential(
            [keras.Input((width,))]
            + [layers.Dense(width, use_bias=False, name=f"d{i}") for i in range(depth)]
        )
        chain = [rng.random((width, width)) * gain for _ in range(depth)]
        for layer, kernel in zip(model.layers, chain, strict=True):
            layer.kernel.assign(kernel)
        chain = [np.float32(kernel).astype(float) for kernel in chain]
        log10, values = scored(model)
        forward, logs = np.ones(width), 0.0
        ahead = []
        for kernel in chain:
            ahead.append(forward)
            forward = forward @ kernel
            logs += np.log10(forward.sum())
            forward /= forward.sum()
        np.testing.assert_allclose(log10, logs, rtol=1e-5)
        assert abs(logs) > 60
        backward = np.ones(width)
        for i in reversed(range(depth)):
            expected = chain[i] * np.outer(ahead[i], backward)
            got = values[f"d{i}/kernel"]
            np.testing.assert_allclose(
                got / got.sum(), expected / expected.sum(), rtol=1e-4
            )
            backward = chain[i] @ backward
            backward /= backward.sum()
        sums = [value.sum() for value in values.values()]
        np.testing.assert_allclose(sums, sums[0], rtol=1e-4)


def test_branches_of_different_magnitude_meet_at_one_scale():
    """A branch of eight layers with gain 10 each, beside one with gain 1e8."""
    inputs = keras.Input((1,))
    x = inputs
    for i in range(8):
        x = layers.Dense(1, use_bias=False, name=f"b{i}")(x)
    y = layers.Dense(1, use_bias=False, name="shortcut")(inputs)
    z = layers.Concatenate()([layers.Add()([x, y]), y])
    model = keras.Model(inputs, layers.Dense(1, use_bias=False, name="last")(z))
    for layer in model.layers:
        if layer.weights:
            gain = {"shortcut": 1e8, "last": 1.0}.get(layer.name, 10.0)
            layer.kernel.assign(np.full(layer.kernel.shape, gain))
    log10, values = scored(model)
    np.testing.assert_allclose(log10, np.log10(3e8), rtol=1e-6)
    total = values["last/kernel"].sum()
    np.testing.assert_allclose(values["b0/kernel"].sum() / total, 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(
        values["shortcut/kernel"].sum() / total, 2 / 3, rtol=1e-5
    )


# -- refusals ----------------------------------------------------------------------


def test_recurrent_layers_are_refused_with_a_reason():
    ticket = kt.wrap(zoo.build("recurrent"), kt.SynFlow(0.5, rounds=2))
    with pytest.raises(flow.NotLinearError, match=r"GRU 'gru' is recurrent.*kt\.SNIP"):
        ticket.draw()
    assert not ticket.drawn


class Opaque(layers.Layer):
    """Not made of layers, not homogeneous, and no graph can be made of it."""

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            return x
        return x + 1


@pytest.mark.lowest
def test_an_unknown_layer_that_is_not_linear_is_named():
    model = image_model(Opaque(name="mystery"))
    ticket = kt.wrap(model, kt.SynFlow(0.5, rounds=2))
    message = (
        r"Opaque 'mystery' has no linear form.*f\(2x\) is not 2 f\(x\).*flow\.rule"
    )
    with pytest.raises(flow.NotLinearError, match=message):
        ticket.draw(verbose=0)
    assert not ticket.drawn


class Unheard(keras.Model):
    """Subclassed, and never told what its inputs are."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.dense.build((None, 4))
        self.built = True

    def call(self, x):
        return self.dense(x)


def test_a_model_of_unknown_inputs():
    with pytest.raises(flow.NotLinearError, match="inputs of 'unheard' are not known"):
        kt.wrap(Unheard(), kt.SynFlow(0.5, rounds=2)).draw()
    kt.wrap(Unheard(), kt.Magnitude(0.5)).draw()  # judged by empty tensors


def test_what_fails_on_the_way_is_named():
    class Broken(layers.Layer):
        def call(self, x):
            raise RuntimeError("out of luck")

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    ticket = kt.wrap(image_model(Broken(name="odd")), kt.SynFlow(0.5, rounds=2))
    with pytest.raises(flow.NotLinearError, match=r"Broken 'odd'.*out of luck"):
        ticket.draw()


def test_a_budget_that_can_not_be_met_half_way_does_not_hang():
    shares_ = {"stem": 0.5, "branch": 0.99, "shortcut": 0.99, "head": 0.5}
    pruner = kt.SynFlow(0.6, rounds=2, allocation=shares_)
    with pytest.raises(kt.LayerCollapseError, match=r"branch/kernel.*shortcut/kernel"):
        kt.wrap(shortcut_model(), pruner).draw(verbose=0)


@pytest.mark.lowest
def test_a_layer_can_be_taught():
    @flow.rule(Opaque)
    def identity(network, layer, x):
        return x

    ticket = kt.wrap(image_model(Opaque()), kt.SynFlow(0.5, rounds=2))
    try:
        curve = ticket.draw(verbose=0)
        assert ticket.drawn
        assert np.isfinite(curve.measure).all()
    finally:
        flow.rules.RULES.pop(Opaque)


def test_a_linear_layer_needs_no_rule():
    share = shares(image_model(layers.Lambda(lambda x: 3.0 * x[:, 1:])))
    np.testing.assert_allclose(share["first/kernel"], 1, rtol=1e-4)


# -- cuts --------------------------------------------------------------------------


def shortcut_model() -> keras.Model:
    inputs = keras.Input((6,))
    x = layers.Dense(6, name="stem")(inputs)
    y = layers.Dense(6, name="branch")(x)
    z = layers.Dense(6, name="shortcut")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Add()([y, z])))


def test_an_empty_shortcut_beside_a_live_branch_is_no_collapse():
    shares_ = {"stem": 0.5, "branch": 0.5, "shortcut": 0.99, "head": 0.5}
    ticket = kt.wrap(shortcut_model(), kt.Random(0.6, seed=0, allocation=shares_))
    ticket.draw()
    kept = {
        k.layer.name: m.sum()
        for k, m in zip(ticket.kernels, ticket.mask_set.values(), strict=True)
    }
    assert kept["shortcut"] == 0


def test_both_branches_empty_is_a_collapse_that_names_both():
    shares_ = {"stem": 0.5, "branch": 0.99, "shortcut": 0.99, "head": 0.5}
    ticket = kt.wrap(shortcut_model(), kt.Random(0.6, seed=0, allocation=shares_))
    with pytest.raises(kt.LayerCollapseError, match=r"branch/kernel.*shortcut/kernel"):
        ticket.draw()


def test_a_cut_without_an_empty_tensor_is_found():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, use_bias=False, name="in"),
            layers.Dense(2, use_bias=False, name="out"),
        ]
    )
    model.layers[0].kernel.assign([[1.0, 0.1], [0.9, 0.1]])
    model.layers[1].kernel.assign([[0.1, 0.1], [1.0, 0.9]])
    ticket = kt.wrap(model, kt.Magnitude(0.5))
    message = r"nothing passes .*out/kernel \(keeps 2 of 4 weights\)"
    with pytest.raises(kt.LayerCollapseError, match=message):
        ticket.draw()
    assert ticket.sparsity == 0.0


def test_a_dead_gate_does_not_cut_what_it_scales():
    model = image_model(squeeze_excite)
    gates = {"squeeze": 0.99, "excite": 0.99, "first": 0.1, "last": 0.1}
    ticket = kt.wrap(model, kt.Random(0.2, seed=0, allocation=gates))
    ticket.draw()
    kept = dict(zip(ticket.masks, map(np.sum, ticket.masks.values()), strict=True))
    assert [kept[f"{name}/kernel"] for name in ("squeeze", "excite")] == [0, 0]


def test_a_recurrent_collapse_is_an_empty_tensor():
    model = zoo.build("recurrent")
    empty = {"gru/.*recurrent": 0.999, ".": 0.1}
    ticket = kt.wrap(model, kt.Random(0.2, seed=0, allocation=empty))
    with pytest.raises(kt.LayerCollapseError, match=r"gru.*recurrent_kernel"):
        ticket.draw()


def test_too_few_weights_for_any_path():
    ticket = kt.wrap(shortcut_model(), kt.SynFlow(1 - 2 / 126))
    message = r"keep 2 of 126 weights.*at least 3 of the 4 .*at most 0\.976"
    with pytest.raises(kt.LayerCollapseError, match=message):
        ticket.draw()
    assert not ticket.drawn


def test_a_model_that_is_dead_already_is_named():
    model = shortcut_model()
    kernel = model.get_layer("head").kernel
    kernel.assign(np.zeros(kernel.shape))
    ticket = kt.wrap(model, kt.SynFlow(0.5))
    with pytest.raises(ValueError, match=r"before anything is pruned.*head/kernel"):
        ticket.draw()


@pytest.mark.lowest
def test_find_kernels_is_what_the_network_walks():
    model = shortcut_model()
    network = flow.Network(model, find_kernels(model))
    abs_weights = [ops.abs(k.variable.value) for k in network.kernels]
    names = [p.layer.name for p in network.trace(abs_weights) if p.signal_out]
    assert {"stem", "branch", "shortcut", "head"} <= set(names)
