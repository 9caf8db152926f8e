"""Operations and bytes: each kind of layer, and the figures of the papers."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import keras_tickets as kt
from examples import networks
from keras_tickets.kernels import find_kernels
from keras_tickets.kernels.usage import uses

pytestmark = pytest.mark.backend_independent


def used(model, given=None) -> dict[str, int]:
    """Return how often the weights of each kernel are used, by the end of its path."""
    kernels = find_kernels(model)
    counts = uses(model, kernels, given)
    return {
        kernel.path: use.times
        for kernel, use in zip(kernels, counts, strict=True)
        if not kernel.path.endswith("bias")
    }


@pytest.mark.lowest
def test_convolutions():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="plain")(inputs)
    x = layers.DepthwiseConv2D(3, name="depth")(x)
    x = layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, name="up")(x)
    x = layers.Conv2D(6, 1, groups=3, name="grouped")(x)
    x = layers.Reshape((5, 30))(x)
    x = layers.Conv1D(2, 2, dilation_rate=2, name="line")(x)
    assert used(keras.Model(inputs, x)) == {
        "plain/kernel": 16,
        "depth/kernel": 4,
        "separable/depthwise_kernel": 4,
        "separable/pointwise_kernel": 4,
        "up/kernel": 4,
        "grouped/kernel": 25,
        "line/kernel": 3,
    }


@pytest.mark.lowest
def test_dense_einsum_and_attention():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="table")(inputs)
    x = layers.Dense(8, name="each")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 8), name="sum")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    found = used(keras.Model(inputs, x))
    assert found.pop("table/embeddings") == 0
    assert set(found.values()) == {6}
    assert len(found) == 6


def test_a_shared_layer_counts_each_call():
    inputs = keras.Input((4,))
    twice = layers.Dense(4, name="twice")
    assert used(keras.Model(inputs, twice(twice(inputs)))) == {"twice/kernel": 2}


@pytest.mark.lowest
def test_recurrent_layers():
    inputs = keras.Input((6, 4))
    x = layers.LSTM(5, return_sequences=True, name="lstm")(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    x = layers.TimeDistributed(layers.Dense(3), name="steps")(x)
    x = layers.RNN(layers.SimpleRNNCell(3), name="own")(x)
    found = used(keras.Model(inputs, x))
    assert set(found.values()) == {6}
    assert len(found) == 2 + 4 + 1 + 2


class Cell(layers.Layer):
    """A cell of layers, and with a kernel of its own."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.state = inner, layers.Dense(4)
        self.state_size = self.output_size = 4

    def build(self, shape):
        self.inner.build(shape)
        self.state.build((shape[0], 4))
        self.own = self.add_weight(shape=(4, 4), name="own")

    def call(self, inputs, states):
        x = self.inner(inputs)
        x = keras.ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
        x = x + self.state(states[0]) @ self.own
        return x, [x]


def unrolled():
    return layers.RNN(Cell(layers.Dense(4)), return_sequences=True, unroll=True)


@pytest.mark.parametrize(
    "recurrent",
    [
        lambda: layers.RNN(Cell(layers.Dense(4)), return_sequences=True),
        lambda: layers.RNN(Cell(layers.Dense(4))),
        unrolled,
        lambda: layers.RNN(
            [layers.LSTMCell(3), Cell(layers.Dense(4))], return_sequences=True
        ),
        lambda: layers.Bidirectional(
            layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_sequences=True)
        ),
    ],
)
def test_a_cell_is_used_once_in_each_step(recurrent):
    model = keras.Sequential([keras.Input((5, 3)), recurrent()])
    assert set(used(model).values()) == {5}


def test_a_convolution_in_a_cell_moves_in_each_step():
    cell = Cell(layers.Conv2D(4, 3))
    model = keras.Sequential([keras.Input((5, 8, 7, 3)), layers.RNN(cell)])
    found = {path.rsplit("/", 2)[-2:][0]: n for path, n in used(model).items()}
    assert found[cell.inner.name] == 5 * 6 * 5
    assert found[cell.state.name] == found[cell.name] == 5


def test_convolutional_recurrence():
    inputs = keras.Input((5, 8, 8, 2))
    model = keras.Model(inputs, layers.ConvLSTM2D(3, 3)(inputs))
    assert set(used(model).values()) == {5 * 36}


class Positions(layers.Layer):
    """Adds a table; keeps a state that is not trained, and a kernel that is."""

    def build(self, shape):
        self.table = self.add_weight(shape=(1, *shape[1:]), name="position_table")
        self.mean = self.add_weight(shape=shape[1:], name="mean", trainable=False)
        self.turn = self.add_weight(shape=(shape[-1],) * 2, name="turn")

    def call(self, inputs):
        return (inputs + self.table - self.mean) @ self.turn


@pytest.mark.parametrize(
    ("make", "products"),
    [
        (layers.PReLU, {"alpha": 0}),
        (lambda: layers.LayerNormalization(axis=[1, 2]), {"gamma": 0, "beta": 0}),
        (
            lambda: layers.SpectralNormalization(layers.Dense(3)),
            {"vector_u": 0, "kernel": 6},
        ),
        (Positions, {"position_table": 0, "mean": 0, "turn": 6}),
        (lambda: layers.Dense(3, trainable=False), {"kernel": 6}),
        (lambda: Positions(trainable=False), {"position_table": 0, "turn": 6}),
    ],
)
def test_only_products_count(make, products):
    model = keras.Sequential([keras.Input((6, 4)), make()])
    found = {path.rsplit("/", 1)[-1]: n for path, n in used(model).items()}
    assert {name: found[name] for name in products} == products


def test_what_is_multiplied_does_not_hang_on_the_wording_of_a_reason():
    rows = kt.prunable.EXCLUSIONS
    saved = [*rows]
    model = keras.Sequential([keras.Input((6, 4)), Positions(), layers.PReLU()])
    before = used(model)
    try:
        rows[:] = [dataclasses.replace(row, reason="other words") for row in saved]
        assert used(model) == before
    finally:
        rows[:] = saved


def test_a_kernel_frozen_by_itself_counts():
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(3)])
    model.layers[0].kernel.trainable = False
    assert list(used(model).values()) == [6]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: layers.Dense(3)(x),
        lambda x: layers.EinsumDense("abc,cd->abd", (6, 5))(x),
        lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        lambda x: layers.Conv1D(2, 3, padding="same")(x),
        lambda x: layers.LSTM(3)(x),
        # Axes that were folded into the batch count.
        lambda x: layers.Dense(3)(keras.ops.reshape(x, (-1, 4))),
    ],
)
def test_a_fixed_batch_is_not_one_sample(make):
    inputs = keras.Input(batch_shape=(8, 6, 4))
    assert set(used(keras.Model(inputs, make(inputs))).values()) == {6}


def test_outputs_of_a_transposed_convolution():
    up = layers.Conv2DTranspose(4, 2, strides=2)
    model = keras.Sequential([keras.Input((8, 8, 2)), up])
    (kernel,) = kt.flops(model, print_fn=None).kernels
    assert (kernel.uses, kernel.outputs) == (64, 16 * 16 * 4)
    assert kernel.dense == 2 * 64 * (2 * 2 * 4 * 2) + 16 * 16 * 4


@pytest.mark.backend_independent(False)
def test_channels_first():
    x = keras.Input((2, 9, 7))
    convolution = layers.Conv2D(3, 3, data_format="channels_first", name="plain")
    model = keras.Model(x, convolution(x))
    assert used(model) == {"plain/kernel": 7 * 5}


@pytest.mark.backend_independent(False)
@pytest.mark.lowest
def test_products_are_those_of_the_backend():
    """All weights one, all inputs one: the outputs sum to the number of products."""
    inputs = keras.Input((9, 9, 2))
    x = layers.Conv2D(3, 3, name="a", use_bias=False)(inputs)
    model = keras.Model(inputs, x)
    model.set_weights([np.ones(w.shape) for w in model.get_weights()])
    products = float(np.sum(model.predict(np.ones((1, 9, 9, 2)), verbose=0)))
    assert kt.flops(model, print_fn=None).macs == products


def test_unknown_sizes_are_asked_for():
    model = keras.Sequential([keras.Input((None, 3), name="line"), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"'line' has the shape .*input_signature="):
        kt.flops(model)
    for batch in (1, None, 4):
        spec = keras.InputSpec(shape=(batch, 7, 3), dtype="float32")
        assert kt.flops(model, input_signature=[spec], print_fn=None).macs == 7 * 6


def test_layers_are_left_as_they_were():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    kt.flops(model, print_fn=None)
    assert "call" not in vars(model.layers[0])


@pytest.fixture(scope="module")
def resnet50():
    return networks.resnet50()


# What each backend makes of the layers in it, the small models above have shown.
def test_dense_resnet50(resnet50):
    cost = kt.flops(resnet50, print_fn=None)
    assert cost.macs == 4_089_184_256
    assert cost.dense == pytest.approx(8.18948e9, rel=1e-5)
    assert cost.bytes / 1e6 == pytest.approx(102.122, abs=1e-3)
    assert sum(k.weights for k in cost.kernels) == 25_502_912


@pytest.mark.parametrize(
    ("allocation", "sparsity", "share", "megabytes"),
    [
        ("erk", 0.9, 0.2429, 13.499),
        # What follows from the same formulas, with other numbers.
        pytest.param("uniform", 0.8, 0.2241, 23.729, marks=pytest.mark.slow),
        pytest.param("erk", 0.8, 0.4146, 23.684, marks=pytest.mark.slow),
        pytest.param("erk", 0.95, 0.1229, 8.399, marks=pytest.mark.slow),
        pytest.param("uniform", 0.9, 0.1272, 13.532, marks=pytest.mark.slow),
        pytest.param("uniform", 0.95, 0.0787, 8.433, marks=pytest.mark.slow),
    ],
)
def test_published_costs_of_resnet50(resnet50, allocation, sparsity, share, megabytes):
    if allocation == "uniform":  # whose first layer stays dense
        allocation = kt.allocation.Explicit({"stem_conv": 0.0}, rest="uniform")
    ticket = kt.wrap(resnet50, kt.RigL(sparsity, allocation=allocation, seed=0))
    ticket.draw()
    cost = kt.flops(ticket, print_fn=None)
    assert cost.sparse / cost.dense == pytest.approx(share, abs=1e-4)
    assert cost.bytes / 1e6 == pytest.approx(megabytes, abs=2e-3)
    rigl = {("erk", 0.8): 0.4165, ("erk", 0.9): 0.2454}.get((allocation, sparsity))
    if rigl:
        assert cost.trained / (3 * cost.dense) == pytest.approx(rigl, abs=1e-4)
        snfs = kt.SNFS(sparsity).training_flops(cost.dense, cost.sparse, None)
        expected = {0.8: 0.6097, 0.9: 0.4953}[sparsity]
        assert snfs / (3 * cost.dense) == pytest.approx(expected, abs=1e-4)


def small(pruner) -> kt.Ticket:
    model = keras.Sequential([keras.Input((20,)), layers.Dense(10, use_bias=False)])
    return kt.wrap(model, pruner)


@pytest.mark.parametrize(
    ("pruner", "share"),
    [
        (lambda: kt.Static(0.8), 0.2),
        (lambda: kt.SET(0.8), 0.2),
        (lambda: kt.SNFS(0.8), (2 * 0.2 + 1) / 3),
        (lambda: kt.RigL(0.8, update_every=9), (3 * 0.2 * 9 + 2 * 0.2 + 1) / 30),
        # The cubic's mean is 3/4 of its end, over 3/4 of the run.
        (lambda: kt.GradualMagnitude(0.8), 1 - 0.8 * (0.75 * 0.75 + 0.25)),
        (lambda: kt.Magnitude(0.8, schedule=kt.schedules.Once(at=0.5)), 0.6),
    ],
)
def test_training_formulas(pruner, share):
    pruner = pruner()
    cost = pruner.training_flops(100.0, 20.0, kt.schedules.Run(10, 10))
    assert cost / 300 == pytest.approx(share, abs=2e-3)


def test_table_states_both_figures():
    ticket = small(kt.RigL(0.8))
    ticket.draw()
    printed = []
    kt.flops(ticket, print_fn=printed.append)
    # 2 * 200 + 10 operations dense, 2 * 40 + 10 sparse; an update every 100 steps.
    sparse, trained = 90 / 410, (3 * 90 * 100 + 2 * 90 + 410) / 101 / (3 * 410)
    assert (f"{sparse:.4f}", f"{trained:.4f}") == ("0.2195", "0.2221")
    assert printed[0].splitlines()[-3:] == [
        "Parameters: 200. Multiply-accumulates: 200 dense, 40 with the kept weights.",
        "Inference: 0.2195 of dense where zeros are skipped; Keras executes it dense.",
        "Training with RigL: 0.2221 of dense by the paper's formula. Executed is 1: "
        "masked training multiplies dense kernels and is not faster.",
    ]
    (row,) = [line for line in printed[0].splitlines() if "dense/kernel" in line]
    assert row.split()[1:] == ["200", "40", "410", "90", "185"]


def test_table_has_a_row_of_biases():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(10)])
    printed = str(kt.flops(model, print_fn=None))
    rows = [line.split() for line in printed.splitlines()]
    assert ["biases", "10", "10", "40"] in rows
    numbers = ["200", "200", "410", "410", "840"]
    assert ["all", "kernels", "and", "biases", *numbers] in rows
    assert "Training" not in printed


def steps(begin=0, end=50):
    return kt.schedules.Polynomial(begin=begin, end=end, unit="steps")


@pytest.mark.parametrize(
    ("pruner", "epochs", "missing"),
    [
        (lambda: kt.GradualMagnitude(0.8, schedule=steps()), None, "epochs= and steps"),
        (lambda: kt.GradualMagnitude(0.8, schedule=steps()), 3, "pass steps_per_epoch"),
        (lambda: kt.IMP(0.8), None, "pass epochs= to kt.flops."),
    ],
)
def test_length_of_the_run_is_asked_for(pruner, epochs, missing):
    cost = kt.flops(small(pruner()), epochs=epochs, print_fn=None)
    assert cost.trained is None
    assert "depends on the length of the run" in str(cost)
    assert missing in str(cost)
    assert str(cost).endswith("= to kt.flops.")


def test_a_schedule_in_steps_needs_the_length_of_the_run():
    ticket = small(kt.GradualMagnitude(0.8, schedule=steps()))
    cost = kt.flops(ticket, epochs=10, steps_per_epoch=10, print_fn=None)
    # The cubic's mean is 3/4 of its end, over half of the run.
    assert cost.trained / 3 == pytest.approx(410 - 320 * 0.875, rel=1e-3)


def layered(pruner) -> kt.Ticket:
    model = keras.Sequential(
        [keras.Input((6, 20)), layers.Dense(30), layers.Flatten(), layers.Dense(5)]
    )
    return kt.wrap(model, pruner)


@pytest.mark.parametrize(
    "pruner",
    [
        lambda: kt.RigL(0.9, seed=0),
        lambda: kt.SET(0.9, allocation="uniform", seed=0),
        lambda: kt.Magnitude(0.5, allocation={"dense": 0.5}),
        lambda: kt.Magnitude(0.0),
    ],
)
def test_training_costs_the_same_before_the_draw(pruner):
    ticket = layered(pruner())
    before = kt.flops(ticket, print_fn=None)
    assert before.kept == before.weights
    ticket.draw()
    after = kt.flops(ticket, print_fn=None)
    assert before.trained == after.trained
    assert (after.trained < 3 * after.dense) == (ticket.pruner.sparsity > 0)


def test_pooled_budgets_are_not_known_before_the_draw():
    ticket = layered(kt.Random(0.6, allocation="global", seed=0))
    cost = kt.flops(ticket, print_fn=None)
    assert cost.trained is None
    assert "Training with Random: not known before the draw" in str(cost)
    ticket.draw()
    cost = kt.flops(ticket, print_fn=None)
    assert cost.trained == pytest.approx(3 * cost.sparse)


def test_a_sparsity_on_the_way_is_not_scaled_again():
    ticket = layered(kt.GradualMagnitude(0.8, allocation="uniform"))
    before = kt.flops(ticket, print_fn=None).trained
    masks = [np.arange(k.size).reshape(k.shape) % 2 == 0 for k in ticket.kernels]
    ticket.mask_set.assign(masks)
    cost = kt.flops(ticket, print_fn=None)
    assert cost.kept == cost.weights // 2
    assert cost.trained == before


@pytest.mark.backend_independent(False)
def test_a_ticket_costs_what_its_plain_model_costs():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(4)])
    ticket = kt.wrap(model, kt.Magnitude(0.82))
    ticket.draw()
    costs = [kt.flops(m, print_fn=None) for m in (ticket, ticket.strip())]
    assert [cost.kept for cost in costs] == [17, 17]
    assert ticket.mask_set.count().kept == 17
    assert costs[0].sparse == costs[1].sparse
    assert costs[0].bytes == costs[1].bytes == 4 * 17 + 96 / 8 + 4 * 12


def test_masked_layers_count():
    inner = layers.Dense(15)
    model = keras.Sequential([keras.Input((20,)), kt.Masked(inner), layers.Dense(2)])
    kt.Magnitude(0.8).draw(model)
    for either in (model, kt.wrap(model), kt.strip(model)):
        cost = kt.flops(either, print_fn=None)
        assert [kernel.kept for kernel in cost.kernels] == [60, 30]
        assert cost.parameters == 20 * 15 + 15 + 15 * 2 + 2
    inner.kernel.assign(np.ones((20, 15)))  # what is masked is dead whatever it holds
    assert kt.flops(model, print_fn=None).kernels[0].kept == 60
    model.layers[0].bypass = True  # as `strip` leaves a layer that it cannot take out
    assert kt.flops(model, print_fn=None).kernels[0].kept == 300


@pytest.mark.parametrize(
    "make",
    [
        lambda x: layers.MultiHeadAttention(2, 8)(x, x),
        lambda x: layers.GRU(8)(x),
        lambda x: layers.LSTM(8)(x),
        lambda x: layers.Dense(8, use_bias=False)(x),
        lambda x: layers.Dense(8)(x),
        lambda x: layers.SeparableConv1D(8, 3)(x),
        lambda x: layers.EinsumDense("abc,cd->abd", (6, 5), bias_axes="bd")(x),
    ],
)
def test_bytes_of_a_dense_model_are_those_of_its_parameters(make):
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, make(inputs))
    cost = kt.flops(model, print_fn=None)
    assert cost.bytes == 4 * cost.parameters == 4 * model.count_params()


def test_a_zero_by_chance_needs_no_bits():
    model = keras.Sequential([keras.Input((100,)), layers.Dense(20, use_bias=False)])
    kernel = np.ones((100, 20))
    kernel[0, 0] = 0
    model.set_weights([kernel])
    assert kt.flops(model, print_fn=None).bytes == 4 * 2000
    kernel[:3, 0] = 0
    model.set_weights([kernel])
    assert kt.flops(model, print_fn=None).bytes == 4 * 1997 + 2000 / 8


def test_only_built_models_have_a_cost():
    with pytest.raises(ValueError, match="is not built"):
        kt.flops(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TypeError, match=r"Expected a keras\.Model or a ticket"):
        kt.flops("model.keras")


def test_a_model_without_kernels_costs_nothing():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.MaxPooling2D()])
    cost = kt.flops(model, print_fn=None)
    assert (cost.dense, cost.bytes, cost.parameters) == (0, 0, 0)
    assert "Inference: 1.0000 of dense" in str(cost)
