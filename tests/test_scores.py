"""The scores that ask a loss on data: closed forms, data of every kind, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from keras import layers, ops

import keras_tickets as kt
from keras_tickets import backend, pruners, scores
from keras_tickets.backend import keras_private
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


# What makes probabilities of logits, and how many classes it makes them of.
HEADS = {
    "argument": (1, "sigmoid"),
    "layer": (1, lambda z: layers.Activation("sigmoid")(z)),
    "operation": (1, lambda z: layers.Reshape((1,))(ops.sigmoid(z))),
    "nested": (3, "softmax"),
    "softmax": (3, lambda z: layers.Softmax()(z)),
    "function": (1, lambda z: layers.Lambda(lambda t: ops.sigmoid(t))(z)),
    "value": (1, None),
}


@pytest.fixture
def eager(monkeypatch):
    """Without a compilation that takes longer than it saves; XLA needs it anyway."""
    if BACKEND == "tensorflow":
        monkeypatch.setattr(backend, "compiled", lambda function: function)


def many_heads(probabilities: bool) -> tuple[keras.Model, dict]:
    """A model with a head of each kind, or the same with their logits; its losses."""
    x, outputs, asked = keras.Input((5,)), {}, {}
    rng = np.random.default_rng(1)
    for name, (classes, head) in HEADS.items():
        own = head if probabilities and name == "argument" else None
        logits = layers.Dense(classes, own, use_bias=False, name=f"logits_{name}")
        y = logits(x)
        # Logits up to 60: in float32 a sigmoid of these is one.
        scale = 1 if name == "function" else 20
        logits.kernel.assign(scale * rng.normal(size=(5, classes)))
        if probabilities and name == "nested":
            inner = keras.Input((classes,))
            y = keras.Model(inner, layers.Activation(head)(inner))(y)
        elif probabilities and own is None and head is not None:
            y = head(y)
        outputs[name] = y
        kind = "Binary" if classes == 1 else "SparseCategorical"
        asked[name] = getattr(keras.losses, f"{kind}Crossentropy")(
            from_logits=not probabilities
        )
    return keras.Model(x, outputs), asked | {"value": "mse"}


def test_grasp_divides_the_logits_of_any_head(eager):
    labels = {
        name: RNG.integers(0, max(2, classes), (12, 1)).astype("float32")
        for name, (classes, _) in HEADS.items()
    }
    found = []
    for probabilities in (False, True):
        model, asked = many_heads(probabilities)
        ticket = kt.wrap(model)
        ticket.compile("sgd", asked)
        task = scores.Task(model, ticket.kernels, keras_private.compiled_loss(ticket))
        score = scores.GraSP((X, labels), 50.0)
        masks = [ops.ones(kernel.shape, bool) for kernel in ticket.kernels]
        values = score.prepare(task)(masks).values
        names = [kernel.layer.name for kernel in ticket.kernels]
        found.append(dict(zip(names, map(ops.convert_to_numpy, values), strict=True)))
    for name in HEADS:
        logits, behind = (values[f"logits_{name}"] for values in found)
        np.testing.assert_allclose(
            behind, logits, rtol=1e-2, atol=1e-3 * np.abs(logits).max(), err_msg=name
        )
        assert np.any(logits != 0), name


@pytest.mark.backend_independent
def test_probabilities_that_do_not_tell_their_logits_are_refused():
    head = layers.Lambda(lambda t: ops.sigmoid(1000 * t), name="steep")
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1), head])
    y = (Y[:, :1] > 0).astype("float32")
    ticket = kt.wrap(model, kt.GraSP(0.5, (X, y)))
    ticket.compile("sgd", "binary_crossentropy")
    with pytest.raises(ValueError, match=r"from 0 to 1.*from_logits=True"):
        ticket.draw()
    assert not ticket.drawn


class Normalized(layers.Layer):
    """Each sample, and then each feature of a batch: mean zero, variance one."""

    def call(self, x):
        for axis in (-1, 0):
            centered = x - ops.mean(x, axis, keepdims=True)
            variance = ops.mean(ops.square(centered), axis, keepdims=True)
            x = centered / ops.sqrt(variance + 1e-2)
        return x


def test_grasp_with_batch_statistics(eager):
    """Also: with second derivatives of mean and variance, which TensorFlow's lack."""
    norms = [layers.LayerNormalization(epsilon=1e-2)]
    norms += [layers.BatchNormalization(epsilon=1e-2), layers.Dropout(0.5)]
    found = []
    for those, in_training in (([Normalized()], False), (norms, True)):
        dense = layers.Dense(3, use_bias=False)
        model = keras.Sequential([keras.Input((5,)), dense, *those])
        dense.kernel.assign(W)
        score = scores.GraSP((X, Y), 4.0, "mse", 6, batch_statistics=in_training)
        found.append(scored(score, model))
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(ops.convert_to_numpy(norms[1].moving_mean.value), 0)


@pytest.mark.backend_independent
def test_grasp_leaves_outputs_under_a_loss_for_regression(eager):
    g = 2 / 3 * X.T @ residual()
    expected = W * M * (2 / 3 * X.T @ X @ g)
    score = scores.GraSP((X, Y), 4.0, "mse", cool_regression=False)
    np.testing.assert_allclose(scored(score), expected, rtol=1e-3, atol=1e-3)


def test_fisher_of_channels_less_their_cost():
    # One sample: (sum_i w_io g_nio)^2 of output o, which takes 5 multiplications.
    each = 2 / 3 * X[:, :, None] * residual()[:, None, :]
    sums = (W * M * each).sum(1)
    expected = 0.5 * np.mean(sums**2, axis=0) - 0.01 * 5
    score = scores.Fisher((X, Y), "mse", channel_sum=True, cost=0.01)
    got = scored(score)
    np.testing.assert_allclose(got, np.broadcast_to(expected, (5, 3)), rtol=1e-4)


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


@pytest.mark.backend_independent
def test_channels_and_their_cost():
    with pytest.raises(ValueError, match=r'structure="channel"'):
        kt.Fisher(0.5, (X, Y), channel_sum=True)
    with pytest.raises(ValueError, match=r"not be negative.*-1"):
        kt.Fisher(0.5, (X, Y), cost=-1)


@pytest.mark.backend_independent
def test_synflow_counts_as_published():
    """`int((1 - s^(e / n)) N)` are dropped after round `e` of `n`."""
    model = keras.Sequential([keras.Input((5,)), layers.Dense(5), layers.Dense(3)])
    curve = kt.wrap(model, kt.SynFlow(0.8, rounds=3, count="floor")).draw(verbose=0)
    dropped = [int((1 - 0.2 ** (e / 3)) * 40) for e in range(4)]
    assert [round(s * 40) for s in curve.sparsity] == dropped == [0, 16, 26, 32]
    nearest = kt.wrap(model, kt.SynFlow(0.8, rounds=3)).draw(verbose=0)
    assert [round(s * 40) for s in nearest.sparsity] == [0, 17, 26, 32]
    with pytest.raises(ValueError, match=r"count must be one of.*'up'"):
        kt.SynFlow(0.8, count="up")


def test_losses_survive_a_config():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruner = kt.GraSP(0.9, (X, Y), temperature=5.0, loss=loss, batch_size=7)
    copy = pruners.get(keras.saving.serialize_keras_object(pruner))
    assert (copy.temperature, copy.batch_size, copy.data) == (5.0, 7, None)
    assert copy.loss.get_config() == loss.get_config()
