"""The scores that ask a loss on data: closed forms, data of every kind, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from keras import layers, ops

import keras_tickets as kt
from keras_tickets import pruners, scores
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.scores import data

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")
Y = RNG.normal(size=(12, 3)).astype("float32")
W = RNG.normal(size=(5, 3)).astype("float32")
M = RNG.random((5, 3)) < 0.7
DATA_PRUNERS = ("SNIP", "GraSP", "Fisher")


def linear() -> keras.Model:
    """`y = x W`, for which every derivative is known."""
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(W)
    return model


def scored(score, model=None, mask=M) -> np.ndarray:
    model = model or linear()
    task = scores.Task(model, kt.wrap(model).kernels)
    (value,) = score.prepare(task)([ops.convert_to_tensor(mask)]).values
    return ops.convert_to_numpy(value)


def residual(x=X, y=Y, scale=1.0):
    return scale * x @ (W * M) - y


# -- closed forms ------------------------------------------------------------------


@pytest.mark.lowest
def test_snip_is_weight_times_gradient():
    # L = sum_n mean_o r^2, so dL/dW = 2/3 X' r.
    expected = np.abs(W * M * (2 / 3 * X.T @ residual()))
    for batch_size in (5, 12):
        got = scored(scores.SNIP((X, Y), "mse", batch_size))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.lowest
def test_fisher_is_half_the_mean_of_squared_sample_gradients():
    each = 2 / 3 * X[:, :, None] * residual()[:, None, :]
    expected = 0.5 * (W * M) ** 2 * np.mean(each**2, axis=0)
    for batch_size in (5, 12):
        got = scored(scores.Fisher((X, Y), "mse", batch_size))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.lowest
def test_grasp_is_weight_times_hessian_times_gradient(temperature):
    # L = sum_n mean_o (x W / T - y)^2: g = 2/(3T) X' r, H V = 2/(3T^2) X'X V.
    g = 2 / 3 / temperature * X.T @ residual(scale=1 / temperature)
    expected = W * M * (2 / 3 / temperature**2 * X.T @ X @ g)
    for batch_size in (5, 12):
        score = scores.GraSP((X, Y), temperature, "mse", batch_size)
        np.testing.assert_allclose(scored(score), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_grasp_divides_logits_also_behind_a_head(head):
    targets = np.eye(3, dtype="float32")[RNG.integers(0, 3, 12)]
    loss = {
        "softmax": keras.losses.CategoricalCrossentropy,
        "sigmoid": keras.losses.BinaryCrossentropy,
    }[head]
    behind = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3, head, use_bias=False)]
    )
    behind.layers[0].kernel.assign(W)
    data = (X, targets)
    one = scored(scores.GraSP(data, 3.0, loss(from_logits=True)))
    two = scored(scores.GraSP(data, 3.0, loss()), behind)
    np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", DATA_PRUNERS)
@pytest.mark.lowest
def test_scores_are_those_of_inference(name):
    """BatchNorm at its first statistics and dropout are the identity then."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(3, use_bias=False),
            layers.BatchNormalization(epsilon=1e-9),
            layers.Dropout(0.5),
        ]
    )
    model.layers[0].kernel.assign(W)
    score = getattr(scores, name)((X, Y), loss="mse")
    np.testing.assert_allclose(scored(score, model), scored(score), rtol=1e-4)


# -- the model, the data -----------------------------------------------------------


@pytest.mark.lowest
def test_scoring_is_inference_and_changes_nothing():
    model = zoo.build("functional")  # BatchNorm, dropout, losses of its own
    values = [ops.convert_to_numpy(v.value).copy() for v in model.variables]
    data = (zoo.images()[:8], zoo.labels()[:8])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    twice = []
    for _ in range(2):
        ticket = kt.wrap(model, kt.SNIP(0.5, data, loss=loss))
        ticket.draw()
        twice.append(ticket.mask_set.values())
    for first, second in zip(*twice, strict=True):
        np.testing.assert_array_equal(first, second)
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), value)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]


def as_tf_data():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


DATA = {
    "arrays": lambda: (X, Y),
    "list": lambda: [(X[:4], Y[:4]), (X[4:], Y[4:])],
    "generator": lambda: ((X[i : i + 3], Y[i : i + 3]) for i in range(0, 12, 3)),
    "py_dataset": Batches,
    "tf_data": as_tf_data,
    "weighted": lambda: (X, Y, np.ones(12, "float32")),
}


@pytest.mark.parametrize("kind", sorted(DATA))
@pytest.mark.lowest
def test_data_of_every_kind_gives_the_same_scores(kind):
    expected = scored(scores.SNIP((X, Y), "mse"))
    got = scored(scores.SNIP(DATA[kind](), keras.losses.MeanSquaredError()))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_sample_weights_count():
    weight = np.zeros(12, "float32")
    weight[:6] = 2.0
    loss = keras.losses.MeanSquaredError()
    got = scored(scores.SNIP((X, Y, weight), loss))
    expected = np.abs(W * M * (2 * 2 / 3 * X[:6].T @ residual(X[:6], Y[:6])))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.lowest
def test_several_inputs_and_outputs_with_the_compiled_loss():
    model = zoo.build("several")
    inputs = {k: v[:8] for k, v in zoo.inputs_of("several").items()}
    targets = {k: v[:8] for k, v in zoo.targets_of("several").items()}
    ticket = kt.wrap(model, kt.SNIP(0.5, (inputs, targets)))
    zoo.compile_for("several", ticket)
    curve = ticket.draw()
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)
    assert curve.measured == "loss"
    assert curve.measure[0] > 0


@pytest.mark.parametrize(
    ("kind", "name"),
    covering(
        [
            *(("recurrent", "SNIP"), ("subclassed", "SNIP"), ("transformer", "SNIP")),
            *(("recurrent", "GraSP"), ("shared", "GraSP"), ("transformer", "Fisher")),
            *(("subclassed", "GraSP"), ("shared", "Fisher")),
        ],
        quick=[
            *(("recurrent", "SNIP"), ("subclassed", "SNIP"), ("transformer", "SNIP")),
            *(("shared", "GraSP"), ("shared", "Fisher")),
        ],
        # Second gradients through a loop are each backend's own affair.
        elsewhere=[
            *(("subclassed", "SNIP"), ("shared", "GraSP"), ("shared", "Fisher")),
            *(("recurrent", "GraSP"), ("transformer", "Fisher")),
        ],
    ),
)
def test_every_model_of_the_zoo_can_be_asked(kind, name):
    data = (zoo.inputs_of(kind)[:4], zoo.labels()[:4])
    ticket = kt.wrap(zoo.build(kind), getattr(kt, name)(0.3, data))
    zoo.compile_for(kind, ticket)
    ticket.draw()
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


def test_masked_layers_are_scored_in_their_model():
    data = (zoo.images()[:8], zoo.labels()[:8])
    model = zoo.TrainsItself(kt.Masked(layers.Dense(zoo.CLASSES)))
    model.build((None, 8, 8, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    pruner = kt.SNIP(0.5, data)
    model.fit(*data, callbacks=[pruner], verbose=0)
    (masked,) = masked_layers(model)
    assert masked.mask_set.count().sparsity == 0.5


def test_a_saved_ticket_comes_back_without_its_data(tmp_path):
    ticket = kt.wrap(linear(), kt.SNIP(0.6, (X, Y), loss="mse"))
    ticket.compile("sgd", "mse")
    ticket.draw()
    ticket.save(tmp_path / "ticket.keras")
    loaded = keras.models.load_model(tmp_path / "ticket.keras")
    loaded.fit(X, Y, verbose=0)  # drawn already: asks for no data
    np.testing.assert_array_equal(
        loaded.mask_set.values()[0], ticket.mask_set.values()[0]
    )
    assert loaded.pruner.data is None
    assert loaded.pruner.loss == "mse"


# -- rounds ------------------------------------------------------------------------


def test_rounds_follow_one_factor_and_end_on_the_count():
    ticket = kt.wrap(zoo.build("sequential"), kt.SynFlow(0.99, rounds=20))
    curve = ticket.draw(verbose=0)
    total = ticket.mask_set.count().total
    expected = 1 - 0.01 ** (np.arange(21) / 20)
    np.testing.assert_allclose(curve.sparsity, expected, atol=0.5 / total + 1e-9)
    assert np.shape(curve.density) == (21, len(curve.paths))
    assert len(curve.score_seconds) == len(curve.select_seconds) == 20
    assert np.all(np.diff(curve.measure) <= 1e-6)


def test_rounds_begin_at_the_masks_at_hand():
    ticket = kt.wrap(zoo.build("sequential"), kt.Magnitude(0.5))
    ticket.draw()
    again = kt.wrap(ticket, kt.SynFlow(0.9, rounds=4))
    curve = again.draw(verbose=0)
    assert curve.sparsity[0] == ticket.sparsity
    for old, new in zip(ticket.mask_set.values(), again.mask_set.values(), strict=True):
        assert not (new & ~old).any()


def test_a_progress_bar_over_the_rounds(capsys):
    kt.wrap(zoo.build("sequential"), kt.SynFlow(0.8, rounds=3)).draw()
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "log10 R" in out
    assert "/round" in out
    kt.wrap(zoo.build("sequential"), kt.SynFlow(0.8, rounds=3)).draw(verbose=0)
    assert capsys.readouterr().out == ""


def test_fit_keeps_the_curve_and_follows_its_own_verbosity(capsys):
    ticket = kt.wrap(zoo.build("sequential"), kt.SynFlow(0.8, rounds=3))
    zoo.compile_for("sequential", ticket)
    zoo.train("sequential", ticket)
    assert capsys.readouterr().out == ""
    assert ticket.pruner.curve.sparsity[-1] == ticket.sparsity


@pytest.mark.lowest
def test_a_curve_can_be_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    ticket = kt.wrap(zoo.build("sequential"), kt.SynFlow(0.9, rounds=3))
    ticket.draw(verbose=0).plot(str(tmp_path / "curve.png"))
    assert (tmp_path / "curve.png").stat().st_size > 1000


# -- bad input ---------------------------------------------------------------------


def draws(pruner, model=None, loss="mse"):
    ticket = kt.wrap(model or linear(), pruner)
    if loss is not None:
        ticket.compile("sgd", loss)
    ticket.draw()


def classifier(activation=None) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation, name="hidden"),
            layers.Dense(3, name="head"),
        ]
    )


BAD_DATA = {
    "nothing": (None, r"SNIP has no data.*data=\(x, y\)"),
    "unlabelled": (X, r"\(x, y\).*Received: ndarray"),
    "lengths": ((X, Y[:5]), r"differ in length: \[5, 12\]"),
    "width": ((X[:, :4], Y), r"shape \[\(12, 4\)\].*takes \[\(None, 5\)\]"),
    "rank": ((X[..., None], Y), r"\(12, 5, 1\)"),
    "outputs": ((X, Y[:, :2]), r"labels of shape \(12, 2\).*puts out \(12, 3\)"),
    "empty": ([], r"empty"),
}


@pytest.mark.parametrize("name", DATA_PRUNERS)
@pytest.mark.parametrize("kind", sorted(BAD_DATA))
def test_bad_data(name, kind):
    data, message = BAD_DATA[kind]
    with pytest.raises(ValueError, match=message.replace("SNIP", name)):
        draws(getattr(kt, name)(0.5, data))


@pytest.mark.parametrize(("least", "most"), [(0, 3), (-1, 2)])
def test_labels_out_of_range(least, most):
    labels = np.array([least, most] * 6)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    message = rf"labels from {least} to {most}.*3 classes.*from 0 to 2"
    with pytest.raises(ValueError, match=message):
        draws(kt.SNIP(0.5, (X, labels)), loss=loss)


def test_endless_data(monkeypatch):
    monkeypatch.setattr(data, "MOST_BATCHES", 20)

    def forever():
        while True:
            yield X, Y

    with pytest.raises(ValueError, match=r"did not end after 20 batches.*take\(10\)"):
        draws(kt.SNIP(0.5, forever()))


def test_no_loss():
    with pytest.raises(ValueError, match=r"needs a loss\. Compile.*or name one"):
        draws(kt.SNIP(0.5, (X, Y)), loss=None)


@pytest.mark.parametrize("name", DATA_PRUNERS)
def test_a_loss_without_gradient(name):
    def rounded(y, outputs):
        return ops.mean(ops.round(outputs) - y, axis=-1)

    with pytest.raises(ValueError, match=r"zero.*gone already at the outputs"):
        draws(getattr(kt, name)(0.5, (X, Y)), loss=rounded)


def test_a_dead_layer_is_named():
    model = classifier("relu")
    model.get_layer("hidden").bias.assign(np.full(4, -100.0))
    model.get_layer("head").kernel.assign(np.full((4, 3), 1.0))
    ticket = kt.wrap(model, kt.SNIP(0.5, (X, Y), loss="mse"))
    with pytest.raises(ValueError, match=r"layer 'hidden' \(Dense\) blocks it"):
        ticket.draw()
    assert not ticket.drawn


def test_inputs_of_zero_are_named():
    with pytest.raises(ValueError, match=r"All inputs are zero"):
        draws(kt.SNIP(0.5, (0 * X, Y)))


def test_nan_data():
    with pytest.raises(ValueError, match=r"NaN or infinite"):
        draws(kt.SNIP(0.5, (np.nan * X, Y)))


@pytest.mark.parametrize("rounds", [0, -3, 1.5])
def test_rounds_below_one(rounds):
    with pytest.raises(ValueError, match=rf"rounds must be .*{rounds}"):
        kt.SynFlow(0.9, rounds=rounds)


def test_temperature_not_positive():
    with pytest.raises(ValueError, match=r"temperature must be positive.*0"):
        kt.GraSP(0.9, (X, Y), temperature=0)


def test_losses_survive_a_config():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruner = kt.GraSP(0.9, (X, Y), temperature=5.0, loss=loss, batch_size=7)
    copy = pruners.get(keras.saving.serialize_keras_object(pruner))
    assert (copy.temperature, copy.batch_size, copy.data) == (5.0, 7, None)
    assert copy.loss.get_config() == loss.get_config()
