"""What undoes masks after the pruner's last word is right, refused or told."""

from __future__ import annotations

import itertools
import warnings

import keras
import numpy as np
import pytest
from conftest import covering
from keras import callbacks, layers

import keras_tickets as kt
from benchmarks import undone

pytestmark = [
    pytest.mark.backend_independent,
    pytest.mark.filterwarnings("ignore:Mining ended before STR"),
    pytest.mark.filterwarnings("ignore:STR will not find its ticket in this run"),
]
BEST = undone.BEST
UNDO = ("EarlyStopping", "LambdaCallback", "ModelCheckpoint")
APART = (*UNDO, "CallbackList", "OrbaxCheckpoint", "SwapEMAWeights", "TensorBoard")
GRADUAL, SEARCH = "GradualMagnitude", "GemMiner"
UNDONE = [(name, GRADUAL) for name in UNDO]
LOADED = [(way, GRADUAL) for way in undone.ways()]
MISSED = "ignore:.*(is not done|missed its target|shorter than the schedule)"


class Finished:
    """A finished ticket, its weights before and after, what its first epoch left."""

    def __init__(self, pruner, folder):
        self.ticket = undone.compiled(pruner)
        self.saves = undone.Saves(folder)
        self.before = self.ticket.get_weights()
        undone.fit(self.ticket, [self.saves])
        self.after = self.ticket.get_weights()

    def at(self, weights):
        """Return the ticket with these weights, so that no other has to compile."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.ticket.set_weights(weights)
        return self.ticket

    @property
    def fresh(self):
        return self.at(self.before)

    @property
    def done(self):
        return self.at(self.after)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = {}

    def of(pruner):
        if pruner not in made:
            made[pruner] = Finished(pruner, tmp_path_factory.mktemp(pruner))
        return made[pruner]

    return of


# -- callbacks, and ways of loading --------------------------------------------------


def test_each_callback_of_keras_has_a_row():
    """One that a newer Keras brings has to be looked at, and added."""
    assert set(undone.exported()) <= set(undone.CALLBACKS)


@pytest.mark.parametrize(
    ("name", "pruner"),
    covering(itertools.product(UNDO, undone.PRUNERS), quick=UNDONE),
)
def test_what_undoes_masks_is_told(name, pruner, trained):
    found = undone.after_callback(name, pruner, trained(pruner).fresh)
    # RigL has the same sparsity in each epoch.
    same = pruner == "RigL" and name != "LambdaCallback"
    assert found == ("on target" if same else "told")


def test_the_others_leave_masks_alone(trained, tmp_path):
    """All of them in one run; each by itself is in the table of `undone`."""
    ticket = trained("GradualMagnitude").fresh
    others = [name for name in undone.exported() if name not in APART]
    made = [undone.CALLBACKS[name](ticket, tmp_path) for name in others]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        undone.fit(ticket, [undone.Worse(), *made])
    assert undone.outcome(ticket, told) == "on target"


@pytest.mark.parametrize(
    ("way", "pruner"),
    covering(itertools.product(undone.ways(), undone.PRUNERS), quick=LOADED),
)
def test_no_loading_undoes_masks_without_a_word(way, pruner, trained):
    finished = trained(pruner)
    expected = "on target" if pruner == "RigL" else "told"
    for ticket in (finished.done, undone.compiled(pruner)):
        if way == undone.ASSIGNED and ticket is not finished.ticket:
            continue  # by the user's own hand, into what was never pruned
        found = undone.after_loading(way, ticket, finished.saves)
        assert found == expected or found.startswith("refused")


@pytest.mark.backend_independent(False)
def test_the_warning_names_numbers_cause_and_way_out(trained):
    ticket = trained("GradualMagnitude").fresh
    best = callbacks.EarlyStopping(patience=99, restore_best_weights=True, **BEST)
    with pytest.warns(UserWarning, match="put back") as told:
        undone.fit(ticket, [undone.Worse(), best])
    (message,) = [str(w.message) for w in told if "asked for" in str(w.message)]
    for part in (
        "GradualMagnitude, asked for sparsity 0.5",
        "the pruner had left sparsity 0.5, but now the ticket has sparsity "
        f"{ticket.sparsity:.4g}",
        "EarlyStopping(restore_best_weights=True) put back the best epoch of all, "
        "which was epoch 1",
        "kt.BestOnTarget",
    ):
        assert part in message


def test_a_run_may_go_on_from_what_was_loaded(trained):
    finished = trained("GradualMagnitude")
    new = finished.fresh
    new.load_weights(finished.saves.folder / "early.weights.h5")
    undone.fit(new, [])  # where a warning would be an error
    assert new.on_target


def test_what_leaves_masks_alone_tells_nothing(trained):
    finished = trained("GradualMagnitude")
    ticket = finished.done
    ticket.set_weights([np.array(value) for value in finished.after])
    ticket.model.set_weights(ticket.model.get_weights())
    ticket.predict(undone.X, verbose=0)
    ticket.strip()
    kt.wrap(ticket, kt.Magnitude(0.8)).strip()  # sparser, if it is ever pruned


# -- the way out ---------------------------------------------------------------------


class Kept(callbacks.Callback):
    """Keeps what each epoch ends with."""

    def on_train_begin(self, logs=None):
        self.epochs = {}

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[epoch] = self.model.get_weights()


@pytest.mark.parametrize("pruner", covering(undone.PRUNERS, quick=[GRADUAL]))
def test_the_best_epoch_on_target_is_restored(pruner, trained):
    ticket, kept = trained(pruner).fresh, Kept()
    best = kt.BestOnTarget(**BEST)
    undone.fit(ticket, [undone.Worse(), best, kept])
    assert ticket.on_target
    assert 0 < best.best_epoch < undone.EPOCHS or pruner == "RigL"
    for now, then in zip(
        ticket.get_weights(), kept.epochs[best.best_epoch], strict=True
    ):
        np.testing.assert_array_equal(now, then)
    if pruner == "IMP":  # the last of three rounds; the weights went back before it
        assert best.best_epoch == 4


@pytest.mark.slow
@pytest.mark.filterwarnings(MISSED)
def test_a_run_that_is_resumed_goes_on_from_the_best_epoch(trained, tmp_path):
    ticket = trained("GradualMagnitude").fresh
    path = tmp_path / "best.weights.h5"

    def run(epochs, initial_epoch):
        best, kept = kt.BestOnTarget(filepath=path, **BEST), Kept()
        listed = [undone.Worse(), best, kept]
        x, y = undone.X, undone.Y
        ticket.fit(
            *(x, y, 8),
            epochs=epochs,
            initial_epoch=initial_epoch,
            verbose=0,
            callbacks=listed,
        )
        return best, kept

    first, epochs = run(6, 0)
    best, _ = run(8, 6)
    assert 0 < best.best_epoch == first.best_epoch
    kept = epochs.epochs[best.best_epoch]
    assert all(map(np.array_equal, ticket.get_weights(), kept))


def test_patience_counts_epochs_on_target(trained):
    ticket = trained("GradualMagnitude").fresh
    undone.fit(ticket, [undone.Worse(), kt.BestOnTarget(patience=1, **BEST)])
    assert ticket.history.epoch == [0, 1, 2, 3, 4]  # of six; on target in the fourth
    assert ticket.on_target


def test_a_model_with_masked_layers_names_its_pruner():
    masked = kt.Masked(layers.Dense(4))
    model = keras.Sequential([keras.Input((8,)), masked])
    model.compile("sgd", "mse", run_eagerly=True)
    pruner, y = kt.GradualMagnitude(0.5), undone.X[:, :4]
    with pytest.raises(ValueError, match=r"BestOnTarget\(pruner=pruner\)"):
        model.fit(undone.X, y, verbose=0, callbacks=[pruner, kt.BestOnTarget()])
    best = kt.BestOnTarget(pruner=pruner, **BEST)
    listed = [pruner, undone.Worse(), best]
    model.fit(undone.X, y, epochs=4, verbose=0, callbacks=listed)
    assert best.best_epoch == 2
    assert masked.mask_set.count().sparsity == 0.5


def test_it_reads_back_and_refuses_another_name():
    best = kt.BestOnTarget("accuracy", patience=3, filepath="x.weights.h5")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(best)
    )
    assert again.get_config() == best.get_config()
    with pytest.raises(ValueError, match=r"must end in '.weights.h5'"):
        kt.BestOnTarget(filepath="x.keras")


# -- layers that are changed after wrap ----------------------------------------------


def quantized(ticket):
    ticket.model.quantize("int8")


def with_lora(ticket):
    ticket.model.layers[0].enable_lora(2)


def replaced(ticket):
    layer = ticket.model.layers[0]
    layer._tracker.unlock()
    layer._untrack_variable(layer._kernel)
    layer._kernel = keras.Variable(np.zeros((8, 8), "float32"))


CHANGED = {quantized: "was quantized", with_lora: "LoRA", replaced: "another variable"}


@pytest.mark.backend_independent(False)
@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
@pytest.mark.parametrize("change", CHANGED)
def test_a_layer_that_was_changed_is_named(change, tmp_path):
    ticket = undone.compiled("GradualMagnitude")
    change(ticket)
    for use in (
        lambda: ticket(undone.X),
        lambda: ticket.predict(undone.X, verbose=0),
        lambda: undone.fit(ticket, []),
        ticket.strip,
        lambda: ticket.save(tmp_path / "x.keras"),
        lambda: ticket.save_weights(tmp_path / "x.weights.h5"),
    ):
        with pytest.raises(ValueError, match=CHANGED[change]):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["int8", "float8", "int4"])
def test_a_ticket_is_not_quantized(mode):
    ticket = undone.compiled("GradualMagnitude")
    kernel = ticket.kernels[0].variable
    with pytest.raises(ValueError, match=r"plain = ticket.strip\(\)"):
        ticket.quantize(mode)
    assert ticket.model.layers[0].kernel is kernel


@pytest.mark.backend_independent(False)
def test_lora_of_a_layer_that_is_not_masked(tmp_path):
    ticket = kt.wrap(undone.network(), kt.Magnitude(0.5), skip="dense_1")
    ticket.draw(verbose=0)
    (other,) = [k.layer for k, _ in ticket.skipped if k.variable.name == "kernel"]
    other.enable_lora(2)
    ticket.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    ticket.fit(undone.X, undone.X[:, :4], verbose=0)
    assert np.any(keras.ops.convert_to_numpy(other.lora_kernel_b))
    ticket.save(tmp_path / "lora.keras")
    loaded = keras.models.load_model(tmp_path / "lora.keras")
    np.testing.assert_allclose(
        loaded.predict(undone.X, verbose=0),
        ticket.predict(undone.X, verbose=0),
        atol=1e-5,
    )


# -- constraints ---------------------------------------------------------------------

CONSTRAINTS = {
    "unit_norm": (keras.constraints.UnitNorm(), 1.0, 1.0),
    "max_norm": (keras.constraints.MaxNorm(0.3), 0.0, 0.3),
    "min_max_norm": (keras.constraints.MinMaxNorm(0.5, 0.6), 0.5, 0.6),
}
ROWS = [("unit_norm", name) for name in undone.PRUNERS]
ROWS += [(name, GRADUAL) for name in ("max_norm", "min_max_norm")]


def constrained(pruner, constraint):
    keras.utils.set_random_seed(0)
    dense = layers.Dense(8, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((8,)), dense, layers.Dense(4)])
    ticket = kt.wrap(model, undone.PRUNERS[pruner]())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ticket.compile(keras.optimizers.Adam(0.05), loss, run_eagerly=True)
    return ticket


@pytest.mark.parametrize(
    ("name", "pruner"), covering(ROWS, quick=[("unit_norm", "IMP")])
)
def test_constraints_count_no_dead_weights(name, pruner):
    constraint, low, high = CONSTRAINTS[name]
    ticket = constrained(pruner, constraint)
    undone.fit(ticket, [])
    assert ticket.on_target
    kernel = ticket.strip().layers[0].get_weights()[0]
    norms = np.linalg.norm(kernel, axis=0)
    assert norms.min() > low - 5e-3
    assert norms.max() < high + 5e-3


class Identity(keras.constraints.Constraint):
    """Puts ones where a mask has zeros."""

    def __call__(self, w):
        return keras.ops.eye(*w.shape)


def test_a_constraint_that_cannot_hold_is_named():
    ticket = constrained("GradualMagnitude", Identity())
    ticket.mask_set.assign([np.eye(8) < 0.5, np.ones((8, 4), bool)])
    with pytest.warns(UserWarning, match="constraint Identity of .*dense/kernel"):
        undone.fit(ticket, [])


# -- layers that are frozen after wrap -----------------------------------------------


def one_layer(ticket):
    ticket.model.layers[0].trainable = False


def all_but_one(ticket):
    ticket.trainable = False
    ticket.model.layers[1].trainable = True


@pytest.mark.parametrize("pruner", covering(undone.PRUNERS, quick=[GRADUAL, SEARCH]))
def test_what_was_frozen_since_is_not_pruned(pruner):
    freeze = all_but_one if pruner == "RigL" else one_layer
    ticket = undone.compiled(pruner)
    freeze(ticket)
    before = ticket.get_weights()
    ticket.compile("sgd", "mse", jit_compile=False, run_eagerly=False)
    with pytest.raises(ValueError, match=r"dense/kernel.*: frozen"):
        ticket.fit(undone.X, undone.X[:, :4], epochs=undone.EPOCHS, verbose=0)
    assert all(map(np.array_equal, before, ticket.get_weights()))


def test_a_finished_ticket_may_be_frozen():
    ticket = kt.wrap(undone.network(), kt.Magnitude(0.5))
    ticket.draw(verbose=0)
    one_layer(ticket)
    ticket.compile("sgd", "mse", run_eagerly=True)
    before = ticket.strip().layers[0].get_weights()[0]
    ticket.fit(undone.X, undone.X[:, :4], verbose=0)
    np.testing.assert_array_equal(ticket.strip().layers[0].get_weights()[0], before)
    with pytest.raises(ValueError, match="frozen"):
        kt.wrap(ticket, kt.Magnitude(0.7)).draw(verbose=0)
