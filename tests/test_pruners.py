"""The contract that every pruner keeps: one row in `PRUNERS` inherits all of it."""

from __future__ import annotations

import hashlib
import itertools

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from keras import layers

import keras_tickets as kt
from keras_tickets import pruners
from keras_tickets.recipe.schedules import Once, Polynomial


def few():
    return zoo.images()[:12], zoo.labels()[:12]


# Of four and two outputs in the convolution, of four in the dense kernel.
BLOCKS = {"structure": "block_4", "seed": 7}
PRUNERS = {
    "magnitude": lambda **kw: kt.Magnitude(0.8, **{"allocation": "uniform"} | kw),
    "magnitude_global": lambda **kw: kt.Magnitude(0.5, **kw),
    "magnitude_late": lambda **kw: kt.Magnitude(
        0.8, **{"allocation": "uniform", "schedule": Once(at=0.5)} | kw
    ),
    "gradual": lambda **kw: kt.GradualMagnitude(0.8, **kw),
    "gradual_exponential": lambda **kw: kt.GradualMagnitude(
        0.9, **{"schedule": "exponential"} | kw
    ),
    "random": lambda **kw: kt.Random(0.8, seed=7, **kw),
    "random_uniform": lambda **kw: kt.Random(0.83, seed=7, allocation="uniform", **kw),
    "random_named": lambda **kw: kt.Random(
        0.8, seed=7, **{"allocation": {"conv": 0.25}} | kw
    ),
    "random_smart": lambda **kw: kt.Random(
        0.6, seed=7, **{"allocation": "smart_ratio"} | kw
    ),
    "synflow": lambda **kw: kt.SynFlow(0.9, rounds=10, **kw),
    "snip": lambda **kw: kt.SNIP(0.8, few(), **kw),
    "snip_iterative": lambda **kw: kt.SNIP(0.9, few(), rounds=3, **kw),
    "grasp": lambda **kw: kt.GraSP(0.8, few(), **kw),
    "static": lambda **kw: kt.Static(0.8, seed=7, **kw),
    "set": lambda **kw: kt.SET(0.8, update_every=2, seed=7, **kw),
    "rigl": lambda **kw: kt.RigL(0.8, update_every=2, seed=7, **kw),
    "snfs": lambda **kw: kt.SNFS(0.8, update_every=2, seed=7, **kw),
    "dynamic": lambda **kw: pruners.Dynamic(0.8, "gradient", update_every=1, seed=7),
    "gem_miner": lambda **kw: kt.GemMiner(0.8, every=1, until=1.0, seed=7, **kw),
    "edge_popup": lambda **kw: kt.EdgePopup(0.8, seed=7, **kw),
    "espn": lambda **kw: kt.ESPN(0.8, **kw),
    "str": lambda **kw: kt.STR(0.8, **kw),
    "imp": lambda **kw: kt.IMP(0.5, fraction=0.5, **kw),
    "fisher": lambda **kw: kt.Fisher(0.8, few(), allocation="erk", **kw),
    # Those that draw while the model trains; the others in test_structure.
    "gradual_blocks": lambda **kw: kt.GradualMagnitude(0.8, structure="block_2"),
    "set_blocks": lambda **kw: kt.SET(0.8, update_every=2, **BLOCKS),
    "rigl_blocks": lambda **kw: kt.RigL(0.8, update_every=2, **BLOCKS),
    "snfs_channels": lambda **kw: kt.SNFS(
        0.5, update_every=2, drop_fraction=0.8, structure="channel"
    ),
    "gem_miner_blocks": lambda **kw: kt.GemMiner(0.8, every=1, until=1.0, **BLOCKS),
    "edge_popup_blocks": lambda **kw: kt.EdgePopup(0.8, **BLOCKS),
    "espn_blocks": lambda **kw: kt.ESPN(0.8, structure="block_4"),
    "imp_blocks": lambda **kw: kt.IMP(0.5, fraction=0.5, structure="block_4"),
}
NAMES = sorted(PRUNERS)
# One row of each class, for what does not depend on the row's arguments.
ONE_EACH = sorted({type(PRUNERS[n]()): n for n in reversed(NAMES)}.values())
DYNAMIC = [n for n in ONE_EACH if isinstance(PRUNERS[n](), pruners.Dynamic)]
# The pruners that draw before the first step share one way to do so: one of them will
# do where the question is what they do between the steps.
AT_ONCE = {"fisher", "grasp", "magnitude", "random", "snip", "static", "synflow"}
WHILE_TRAINING = ["magnitude", *sorted(set(ONE_EACH) - AT_ONCE)]

MODEL = "sequential"  # the smallest; each fit compiles anew
# Two epochs are too few for soft masks and thresholds to come anywhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Mining ended"),
    pytest.mark.filterwarnings("ignore:.*will not find its ticket in this run"),
]
KINDS = ["functional", "nested", "subclassed"]
# Their masks are computed in the step, by the backend.
LEARNED_BLOCKS = ("edge_popup_blocks", "espn_blocks", "gem_miner_blocks")


def ticket_of(name: str, model: str = MODEL, **compiling) -> kt.Ticket:
    ticket = kt.wrap(zoo.build(model), PRUNERS[name]())
    how = compiling or zoo.COMPILED
    zoo.compile_for(model, ticket, keras.optimizers.SGD(0.05), **how)
    return ticket


def masks_of(ticket: kt.Ticket) -> list[np.ndarray]:
    return ticket.mask_set.values()


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_pruner_is_in_the_table():
    covered = {type(make()) for make in PRUNERS.values()}
    covered.add(kt.EarlyBird)  # counts channels, and needs a BatchNorm: test_mined
    assert set(pruners.registry.members.values()) == covered


@pytest.mark.lowest
@pytest.mark.parametrize("name", NAMES)
def test_config_round_trip(name):
    pruner = PRUNERS[name]()
    copy = pruners.get(keras.saving.serialize_keras_object(pruner))
    assert type(copy) is type(pruner)
    assert copy.get_config() == pruner.get_config()


class Run(keras.callbacks.Callback):
    """One run of two epochs, and what it left behind."""

    def __init__(self, name: str, model: str = MODEL, **compiling):
        super().__init__()
        self.ticket = ticket_of(name, model, **compiling)
        self.each_step: list[list[np.ndarray]] = []
        self.losses = zoo.train(model, self.ticket, epochs=2, callbacks=[self])
        self.logged = self.ticket.history.history["sparsity"]
        self.masks = masks_of(self.ticket)

    def on_train_batch_end(self, batch, logs=None):
        _ = self.model
        self.each_step.append(masks_of(self.ticket))


@pytest.fixture(scope="module")
def run(request) -> Run:
    """One run of each pruner, compiled as users compile, for several promises."""
    return Run(request.param)


def check_count(run: Run) -> None:
    ticket = run.ticket
    zeros = sum(int((~mask).sum()) for mask in run.masks)
    total = sum(mask.size for mask in run.masks)
    weight_groups = ticket.pruner.weight_groups(ticket.kernels)
    within = range(
        max(own.distinct_sizes[0] for own in weight_groups)
    )  # [0] for single weights
    if not isinstance(ticket.pruner.allocation, kt.allocation.Explicit):
        assert zeros - round(ticket.pruner.sparsity * total) in within
    assert zeros - ticket.pruner.target(ticket.mask_set).zeros in within
    for own, mask in zip(weight_groups, run.masks, strict=True):
        assert own.matches(mask)
    assert run.logged[-1] == ticket.sparsity == zeros / total
    assert ticket.drawn


@pytest.mark.lowest
@pytest.mark.parametrize("run", ONE_EACH, indirect=True)
def test_exact_count_after_fit_and_logged_each_epoch(run):
    check_count(run)


@pytest.mark.parametrize(
    ("name", "model"),
    covering(
        [(name, MODEL) for name in sorted(set(NAMES) - set(ONE_EACH))]
        + [("gradual", kind) for kind in KINDS],
        # What draws while training in another way than its class does by default.
        quick=[
            *((name, MODEL) for name in ("magnitude_late", "random_named")),
            *((name, MODEL) for name in ("rigl_blocks", "snfs_channels")),
            *((name, MODEL) for name in LEARNED_BLOCKS),
            ("gradual", "functional"),
        ],
        elsewhere=[(name, MODEL) for name in LEARNED_BLOCKS],
    ),
)
def test_exact_count_whatever_the_arguments_and_the_model(name, model):
    check_count(Run(name, model, run_eagerly=True))


@pytest.mark.parametrize(
    "run",
    covering(ONE_EACH, quick=[*WHILE_TRAINING, "snip"], elsewhere=ONE_EACH),
    indirect=True,
)
def test_same_seed_same_masks_and_same_training(run, request):
    again = ticket_of(request.node.callspec.params["run"])
    np.testing.assert_array_equal(zoo.train(MODEL, again, epochs=2), run.losses)
    assert same(masks_of(again), run.masks)


@pytest.mark.lowest
@pytest.mark.parametrize("run", ONE_EACH, indirect=True)
def test_fit_twice_keeps_the_masks(run):
    zoo.train(MODEL, run.ticket, epochs=2)
    assert same(masks_of(run.ticket), run.masks)


@pytest.mark.parametrize(
    "name",
    covering(
        WHILE_TRAINING,
        quick=["gradual", "gem_miner", "imp", "rigl"],
        elsewhere=["gradual", "gem_miner", "rigl"],
    ),
)
def test_steps_per_execution_ends_on_the_same_count(name):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras refuses steps_per_execution > 1 on torch")
    ticket = ticket_of(name, steps_per_execution=3)
    zoo.train(MODEL, ticket, epochs=2)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


@pytest.mark.lowest
@pytest.mark.parametrize("run", sorted(set(ONE_EACH) - set(DYNAMIC)), indirect=True)
def test_masks_are_nested(run):
    for before, after in itertools.pairwise(run.each_step):
        assert not any((b & ~a).any() for a, b in zip(before, after, strict=True))


@pytest.mark.lowest
@pytest.mark.parametrize("run", DYNAMIC, indirect=True)
def test_masks_that_move_keep_the_number_of_each_kernel(run):
    seen = run.each_step
    assert len({tuple(int(mask.sum()) for mask in masks) for masks in seen}) == 1
    moves = [not same(before, after) for before, after in itertools.pairwise(seen)]
    # Two epochs of four steps: until three quarters of them, and never after.
    assert any(moves[:5])
    assert not any(moves[5:])


@pytest.mark.parametrize("name", sorted({*WHILE_TRAINING} - {*DYNAMIC, "gem_miner"}))
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.filterwarnings("ignore:.*nothing would be left to train")
@pytest.mark.filterwarnings("ignore:.*drops from sparsity .* when training is over")
def test_data_of_unknown_length(name):
    def batches():
        for i in range(0, zoo.SAMPLES, zoo.BATCH):
            yield zoo.images()[i : i + 16], zoo.labels()[i : i + 16]

    ticket = ticket_of(name, run_eagerly=True)
    if name in ("edge_popup", "imp"):  # one epoch would end on untrained weights
        with pytest.raises(ValueError, match=r"steps_per_epoch"):
            ticket.fit(batches(), epochs=1, shuffle=False, verbose=0)
        return
    for _ in range(2):
        ticket.fit(batches(), epochs=1, shuffle=False, verbose=0)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


# -- words of the contract that need no table --------------------------------------


def test_draw_before_training_is_kept_by_fit():
    ticket = ticket_of("random")
    ticket.draw()
    masks = masks_of(ticket)
    zoo.train(MODEL, ticket)
    assert same(masks_of(ticket), masks)


@pytest.mark.lowest
def test_gradual_follows_its_curve():
    ticket = kt.wrap(
        zoo.build(MODEL),
        kt.GradualMagnitude(0.9, schedule=Polynomial(begin=0.0, end=1.0)),
    )
    zoo.compile_for(MODEL, ticket)
    history = ticket.fit(
        zoo.images(), zoo.labels(), batch_size=16, epochs=4, verbose=0
    ).history
    expected = [0.9 * (1 - (1 - t) ** 3) for t in (0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(history["sparsity"], expected, atol=2e-3)


def test_a_run_too_short_ends_on_target_and_says_so():
    schedule = Polynomial(begin=0, end=1000, unit="steps")
    ticket = kt.wrap(zoo.build(MODEL), kt.GradualMagnitude(0.8, schedule=schedule))
    zoo.compile_for(MODEL, ticket)
    with pytest.warns(UserWarning, match=r"shorter than the schedule.*4 of 1000 steps"):
        zoo.train(MODEL, ticket)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


def test_a_missed_target_is_a_warning_with_the_numbers():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    ticket = ticket_of("gradual")
    with pytest.warns(UserWarning, match=r"missed its target: asked for .*0\.8"):
        zoo.train(MODEL, ticket, epochs=4, callbacks=[Stop()])
    assert 0 < ticket.sparsity < 0.8


@pytest.mark.parametrize(
    "run",
    covering(
        ["gradual", "random", "rigl", "snfs", "gem_miner"],
        quick=["gradual", "snfs", "gem_miner"],
        elsewhere=["gradual", "random", "snfs", "gem_miner"],
    ),
    indirect=True,
)
def test_compiled_eager_and_jitted_draw_the_same_masks(run, request):
    if keras.backend.backend() == "torch":
        pytest.skip("torch runs eagerly in any case")
    # By itself Keras jits on JAX, and on TensorFlow only where there is a GPU.
    for how in ({"jit_compile": not run.ticket.jit_compile}, {"run_eagerly": True}):
        ticket = ticket_of(request.node.callspec.params["run"], **how)
        zoo.train(MODEL, ticket, epochs=2)
        assert same(masks_of(ticket), run.masks)


@pytest.mark.parametrize(
    "pruner",
    [
        lambda: kt.GradualMagnitude(
            0.8, schedule=Polynomial(begin=0, end=2, unit="steps")
        ),
        kt.RigL,
    ],
)
def test_steps_without_a_known_epoch_length_are_refused(pruner):
    def batches():
        yield zoo.images(), zoo.labels()

    ticket = kt.wrap(zoo.build(MODEL), pruner())
    zoo.compile_for(MODEL, ticket)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        ticket.fit(batches(), shuffle=False, verbose=0)


def two_layers() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(10, name="wide"),
            layers.Dense(2, name="head"),
        ]
    )


@pytest.mark.lowest
@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (0.98, r"nothing passes sequential/head/kernel \(keeps 0 of 20 weights\)"),
        (0.9999, r"keep 0 of 220 weights, but .* at least 2 .* at most 0\.9909"),
    ],
)
def test_layer_collapse_is_raised_before_anything_changes(sparsity, message):
    ticket = kt.wrap(two_layers(), kt.Random(sparsity, seed=0, allocation="uniform"))
    with pytest.raises(kt.LayerCollapseError, match=message):
        ticket.draw()
    assert not ticket.drawn
    assert ticket.sparsity == 0.0


def test_one_weight_more_does_not_collapse():
    shares = {"wide": 0.9, "head": 0.95}
    ticket = kt.wrap(two_layers(), kt.Random(0.9, seed=0, allocation=shares))
    ticket.draw()
    assert [int(mask.sum()) for mask in masks_of(ticket)] == [20, 1]
    shares["head"] = 0.99
    ticket = kt.wrap(two_layers(), kt.Random(0.9, seed=0, allocation=shares))
    with pytest.raises(kt.LayerCollapseError, match="head"):
        ticket.draw()


def test_collapse_can_be_a_warning():
    pruner = kt.Random(0.995, seed=0, allocation="uniform", on_collapse="warn")
    ticket = kt.wrap(two_layers(), pruner)
    with pytest.warns(UserWarning, match="cuts the signal"):
        ticket.draw()
    assert ticket.mask_set.count().kept == 220 - round(0.995 * 220)


def test_nan_weights_are_named_and_nothing_changes():
    model = two_layers()
    kernel = model.get_layer("head").kernel
    value = np.array(kernel.numpy())
    value[3, 1] = np.nan
    kernel.assign(value)
    ticket = kt.wrap(model, kt.Magnitude(0.5))
    with pytest.raises(ValueError, match=r"1 of 20 scores of .*head/kernel.* NaN"):
        ticket.draw()
    assert not ticket.drawn


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, 90])
def test_sparsity_outside_its_range(sparsity):
    with pytest.raises(ValueError, match=r"\[0, 1\).*0\.9"):
        kt.Magnitude(sparsity)


def test_draw_refuses_what_draws_while_training():
    ticket = ticket_of("gradual")
    with pytest.raises(ValueError, match=r"while the model trains.*fit"):
        ticket.draw()
    with pytest.raises(ValueError, match="no pruner"):
        kt.wrap(zoo.build(MODEL)).draw()


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="'erx' is not an allocation"):
        kt.Magnitude(0.5, allocation="erx")
    with pytest.raises(ValueError, match="on_collapse"):
        kt.Magnitude(0.5, on_collapse="ignore")


DIGESTS = {
    "magnitude": "6c6650cd41043f21",
    "magnitude_global": "97632d939ef291bd",
    "random": "e83b29ddd0a47fa3",
    "random_uniform": "c9097ec1362ecc71",
    "random_named": "adea936eb9af5d8d",
}


@pytest.mark.lowest
@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_same_weights_same_ticket_on_every_backend(name):
    """Law 3: one digest, pinned here, for all backends."""
    model = zoo.build("functional")
    rng = np.random.default_rng(11)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32"))
    ticket = kt.wrap(model, PRUNERS[name]())
    ticket.draw()
    packed = b"".join(np.packbits(mask).tobytes() for mask in masks_of(ticket))
    assert hashlib.sha256(packed).hexdigest()[:16] == DIGESTS[name]
