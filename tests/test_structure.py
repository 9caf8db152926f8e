"""What is kept together: which weights are a group, and what holds for every mask."""

from __future__ import annotations

import math
import types

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_tickets as kt
from keras_tickets import structure
from keras_tickets.backend import on_host
from keras_tickets.kernels import MatmulView, find_kernels
from keras_tickets.recipe.allocation import Group, budget
from keras_tickets.recipe.groups import Pattern, WeightGroups
from keras_tickets.recipe.selection import exchange, keep_within, select
from keras_tickets.tflite.file import TfliteFile

pytestmark = pytest.mark.backend_independent

INPUT4, OUTPUT2 = structure.Block(4, "input"), structure.Block(2, "output")


def kernel_of(layer, *shape, index=0):
    layer.build((None, *shape))
    return find_kernels(layer)[index]


# -- which weights are a group -----------------------------------------------------

# A kernel, a structure, the place of a group in the grid of taps, inputs and outputs,
# and by hand which weights it has.
MEMBERS = {
    "dense, inputs": (
        lambda: kernel_of(layers.Dense(5), 8),
        INPUT4,
        (0, 1, 3),
        np.s_[4:8, 3],
    ),
    "dense, the last outputs": (
        lambda: kernel_of(layers.Dense(5), 8),
        OUTPUT2,
        (0, 3, 2),
        np.s_[3, 4:5],
    ),
    "dense, outputs": (
        lambda: kernel_of(layers.Dense(6), 8),
        OUTPUT2,
        (0, 7, 1),
        np.s_[7, 2:4],
    ),
    "dense, channel": (
        lambda: kernel_of(layers.Dense(6), 8),
        structure.Channel(),
        (0, 0, 4),
        np.s_[:, 4],
    ),
    "conv1d, inputs": (
        lambda: kernel_of(layers.Conv1D(5, 3), 9, 8),
        INPUT4,
        (2, 1, 0),
        np.s_[2, 4:8, 0],
    ),
    "conv2d, inputs": (
        lambda: kernel_of(layers.Conv2D(6, 3), 9, 9, 8),
        INPUT4,
        (5, 1, 2),
        np.s_[1, 2, 4:8, 2],
    ),
    "conv2d, outputs": (
        lambda: kernel_of(layers.Conv2D(6, 3), 9, 9, 8),
        OUTPUT2,
        (5, 7, 2),
        np.s_[1, 2, 7, 4:6],
    ),
    "conv2d, channel": (
        lambda: kernel_of(layers.Conv2D(6, 3), 9, 9, 8),
        structure.Channel(),
        (0, 0, 2),
        np.s_[:, :, :, 2],
    ),
    "conv3d, outputs": (
        lambda: kernel_of(layers.Conv3D(4, 2), 5, 5, 5, 3),
        OUTPUT2,
        (5, 2, 1),
        np.s_[1, 0, 1, 2, 2:4],
    ),
    "transposed, outputs": (
        lambda: kernel_of(layers.Conv2DTranspose(6, 3), 9, 9, 8),
        OUTPUT2,
        (5, 7, 2),
        np.s_[1, 2, 4:6, 7],
    ),
    "depthwise, channel": (
        lambda: kernel_of(layers.DepthwiseConv2D(3, depth_multiplier=2), 9, 9, 4),
        structure.Channel(),
        (0, 0, 5),
        np.s_[:, :, 2, 1],
    ),
    "query of attention, inputs": (
        lambda: kernel_of(layers.EinsumDense("abc,cde->abde", (None, 2, 3)), 7, 8),
        INPUT4,
        (0, 1, 4),
        np.s_[4:8, 1, 1],
    ),
    "query of attention, outputs": (
        lambda: kernel_of(layers.EinsumDense("abc,cde->abde", (None, 2, 4)), 7, 8),
        OUTPUT2,
        (0, 5, 3),
        np.s_[5, 1, 2:4],
    ),
    "output of attention, inputs": (
        lambda: kernel_of(layers.EinsumDense("abcd,cde->abe", (None, 6)), 7, 2, 8),
        INPUT4,
        (0, 3, 5),
        np.s_[1, 4:8, 5],
    ),
    "output of attention, channel": (
        lambda: kernel_of(layers.EinsumDense("abcd,cde->abe", (None, 6)), 7, 2, 8),
        structure.Channel(),
        (0, 0, 5),
        np.s_[:, :, 5],
    ),
    "outputs before inputs": (
        lambda: kernel_of(layers.EinsumDense("abc,dbc->ad", (6,)), 3, 8),
        INPUT4,
        (0, 5, 2),
        np.s_[2, 2, 4:8],
    ),
    "gates of an LSTM, inputs": (
        lambda: kernel_of(layers.LSTM(4), 5, 8),
        INPUT4,
        (0, 1, 15),
        np.s_[4:8, 15],
    ),
    "recurrent, inputs": (
        lambda: kernel_of(layers.LSTM(4), 5, 8, index=1),
        INPUT4,
        (0, 0, 9),
        np.s_[0:4, 9],
    ),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_members_of_a_weight_group(case):
    make, words, place, members = MEMBERS[case]
    kernel = make()
    weight_groups = words.on(kernel)
    expected = np.zeros(kernel.shape, bool)
    expected[members] = True
    chosen = np.zeros(weight_groups.sizes.shape, bool)
    chosen[place] = True
    np.testing.assert_array_equal(weight_groups.expand(chosen), expected)
    np.testing.assert_array_equal(weight_groups.count(expected) > 0, chosen)
    assert (
        weight_groups.count(expected)[place]
        == expected.sum()
        == weight_groups.sizes[place]
    )
    scores = np.arange(kernel.size, dtype="float32").reshape(kernel.shape)
    assert weight_groups.pool(scores)[place] == scores[expected].mean()
    assert weight_groups.sizes.sum() == kernel.size
    assert (
        weight_groups.distinct_sizes
        == sorted(set(weight_groups.sizes.ravel().tolist()))[::-1]
    )


def test_groups_of_a_pattern():
    """The golden of JaxPruner, but for its ties; along the inputs of each output."""
    kernel = kernel_of(layers.Dense(2), 8)
    pattern = structure.NM(2, 4).on(kernel)
    scores = np.array([[0.1, 0.9, 0.3, 0.2, 0.5, 0.5, 0.5, 0.5], range(8)]).T
    first = pattern.mandatory(scores, np.ones((8, 2), bool))
    assert first[:4, 0].tolist() == [False, True, True, False]
    assert first[4:, 0].sum() == 2
    assert first[:, 1].tolist() == [False, False, True, True] * 2
    assert pattern.capacity == 8


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        ("block_1x4", structure.Block(4, "input")),
        ("block_1x16", structure.Block(16, "input")),
        ("block_4x1", structure.Block(4, "output")),
        ("block_2", structure.Block(2, "output")),
        ("block", structure.Block()),
        ("2:4", structure.NM(2, 4)),
        ("1:16", structure.NM(1, 16)),
        ("nm", structure.NM(2, 4)),
        ("channel", structure.Channel()),
    ],
)
def test_short_spellings(spelt, meant):
    assert repr(structure.get(spelt)) == repr(meant)
    assert repr(kt.Magnitude(0.75, structure=spelt).structure) == repr(meant)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: structure.Block(1), "at least 2. Received: 1.*unstructured"),
        (lambda: structure.Block(2.5), "whole number of at least 2. Received: 2.5"),
        (lambda: structure.Block(4, "row"), "one of .*'input', 'output'.*'row'"),
        (lambda: structure.NM(4, 4), "1 <= n < m. Received: n=4, m=4"),
        (lambda: structure.NM(0, 4), "1 <= n < m"),
        (lambda: structure.get("5:4"), "1 <= n < m"),
        (lambda: structure.get("block_2x2"), "'block_2x2' is not a structure"),
        (lambda: structure.get("block_1x1"), "at least 2"),
        (lambda: structure.get(4), "4 is not a structure"),
    ],
)
def test_what_is_no_structure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- laws of every mask ------------------------------------------------------------

WORDS = {
    "1x4": INPUT4,
    "2x1": OUTPUT2,
    "3x1": structure.Block(3, "output"),
    "channel": structure.Channel(),
    "unstructured": structure.Unstructured(),
    "2:4": structure.NM(2, 4),
    "1:2": structure.NM(1, 2),
}


def stand_in(taps, inputs, outputs):
    """Return what a structure asks of a kernel."""
    shape = (taps, inputs, outputs)
    kernel = types.SimpleNamespace(path="k", shape=shape, size=math.prod(shape))
    kernel.view = MatmulView((0,), (1,), (2,))
    kernel.extent = lambda axes: math.prod(shape[axis] for axis in axes)
    return kernel


@st.composite
def networks(draw):
    """Weight groups of a few kernels, scores with ties, and sparsities that rise."""
    words = WORDS[draw(st.sampled_from(sorted(WORDS)))]
    step = {"2:4": 4, "1:2": 2, "1x4": 4}.get(words.label, 1)
    shapes = draw(
        st.lists(
            st.tuples(
                st.integers(1, 3),
                st.integers(1, 9).map(step.__mul__),
                st.integers(1, 7),
            ),
            min_size=1,
            max_size=3,
        )
    )
    weight_groups = [words.on(stand_in(*shape)) for shape in shapes]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([1, 3, 10**6]))
    scores = [
        [
            (rng.integers(0, levels, shape) / levels).astype("float32")
            for shape in shapes
        ]
        for _ in range(3)
    ]
    densest = getattr(words, "n", 1) / getattr(words, "m", 1)
    ends = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2)))
    sparsities = [*(end * (1 - densest) for end in ends), 1 - densest]
    if densest == 1:
        sparsities = [*ends, 1 - (1 - ends[1]) / 2]
    return words, weight_groups, scores, sparsities


def group_of(weight_groups, sparsity, shared):
    sizes = [own.sizes.sum() for own in weight_groups]
    keep = budget(int(sum(sizes)), sparsity)
    # Uneven shares, as those of ERK.
    parts = np.array(sizes) ** 0.5
    shares = tuple(keep * parts / parts.sum()) if shared else None
    return Group(tuple(range(len(weight_groups))), keep, shares)


@pytest.mark.parametrize("shared", [False, True])
@settings(deadline=None, max_examples=150)
@given(network=networks())
def test_counts_nesting_and_wholeness_over_a_schedule(shared, network):
    """Law 2, to the weight group: exact, nested, a group entirely kept or dropped."""
    words, weight_groups, scores, sparsities = network
    masks = [np.ones(own.shape, bool) for own in weight_groups]
    largest = max(own.distinct_sizes[0] for own in weight_groups)
    even = len({kind for own in weight_groups for kind in own.distinct_sizes}) == 1
    for step, sparsity in zip(scores, sparsities, strict=True):
        group = group_of(weight_groups, sparsity, shared)
        before = masks
        masks = select(step, [group], before, weight_groups)
        again = select(step, [group], before, weight_groups)
        assert all(map(np.array_equal, masks, again))
        kept = sum(int(mask.sum()) for mask in masks)
        assert 0 <= group.keep - kept < largest
        if even:
            assert kept == group.keep // largest * largest
        assert not any((m & ~b).any() for m, b in zip(masks, before, strict=True))
        if not isinstance(words, structure.NM):
            assert all(o.matches(m) for o, m in zip(weight_groups, masks, strict=True))
    if isinstance(words, structure.NM):
        for mask, own in zip(masks, weight_groups, strict=True):
            taps, inputs, outputs = own.shape
            groups = mask.reshape(taps, inputs // words.m, words.m, outputs)
            assert (groups.sum(axis=2) == words.n).all()
        sparser = select(
            scores[0], [group_of(weight_groups, 0.8, shared)], masks, weight_groups
        )
        assert all(o.matches(m) for o, m in zip(weight_groups, sparser, strict=True))


@pytest.mark.parametrize("words", WORDS)
def test_misfits_are_seen(words):
    """`fits`, by which the laws are tested, finds a single weight out of place."""
    own = WORDS[words].on(stand_in(2, 8, 6))
    mask = np.zeros(own.shape, bool)
    assert own.matches(mask)
    if isinstance(own, Pattern):
        mask[1, : own.kept, 2] = True
        assert own.matches(mask)
        mask[1, own.of - 1, 2] = True
    else:
        mask[1, 5, 3] = True
    assert own.matches(mask) == (words == "unstructured")


@pytest.mark.parametrize("words", ["1x4", "2x1", "3x1", "channel", "2:4"])
@pytest.mark.parametrize("kept", [0.5, 0.25])
def test_ties_are_spread_evenly(words, kept):
    """Constant scores: each input, output and tap keeps nearly the same part."""
    shapes = [(9, 48, 60), (1, 120, 48), (4, 36, 48)]
    weight_groups = [WORDS[words].on(stand_in(*shape)) for shape in shapes]
    scores = [np.full(shape, 0.7, "float32") for shape in shapes]
    alive = [np.ones(shape, bool) for shape in shapes]
    masks = select(
        scores, [group_of(weight_groups, 1 - kept, False)], alive, weight_groups
    )
    for mask, own in zip(masks, weight_groups, strict=True):
        grid = mask if own.distinct_sizes == [1] else own.count(mask) > 0
        for axis in range(3):
            parts = grid.mean(axis=tuple({0, 1, 2} - {axis}))
            if words == "channel" and axis == 2:
                continue  # each is all or nothing
            missed = np.abs(parts - kept).max() * grid.size / parts.size
            assert (
                missed <= (16 if words == "2:4" else 6) + 0.02 * grid.size / parts.size
            )


@pytest.mark.parametrize("inputs", [6, 7, 8])
def test_constant_scores_tie_whatever_the_size_of_the_weight_group(inputs):
    """A smaller last block is worth as much for each weight: neither first nor last."""
    own = WeightGroups(MatmulView((0,), (1,), (2,)), (1, inputs, 1000), (1, 4, 1))
    for level in np.random.default_rng(0).random(100, "float32"):
        pooled = own.pool(np.full(own.shape, level))
        assert np.ptp(pooled) == 0
    [mask] = select([pooled.repeat(4, 1)[:, :inputs]], [group_of([own], 0.5, False)],
                    [np.ones(own.shape, bool)], [own])  # fmt: skip
    parts = (own.count(mask) > 0).mean(axis=(0, 2))
    np.testing.assert_allclose(parts, 0.5, atol=0.02)


def test_shares_hold_on_the_way_to_a_pattern():
    """What a kernel keeps beyond its n of m is what its share leaves room for."""
    patterns = [structure.NM(2, 4).on(stand_in(1, 8, 5)) for _ in range(2)]
    scores = list(np.random.default_rng(0).random((2, 1, 8, 5)))
    alive = [np.ones(score.shape, bool) for score in scores]
    masks = select(scores, [Group((0, 1), 60, (37.0, 23.0))], alive, patterns)
    assert [int(mask.sum()) for mask in masks] == [37, 23]
    masks = select(scores, [Group((0, 1), 30, (25.0, 5.0))], alive, patterns)
    assert [int(mask.sum()) for mask in masks] == [20, 10]
    assert all(own.matches(mask) for own, mask in zip(patterns, masks, strict=True))


def test_weight_groups_of_different_sizes_compete_by_the_weight():
    """A channel of many weights is worth their mean: not more for being large."""
    small, large = (structure.Channel().on(stand_in(1, n, 2)) for n in (2, 10))
    scores = [np.full((1, 2, 2), 3.0), np.full((1, 10, 2), 1.0)]
    scores[1][..., 1] = 4.0
    alive = [np.ones(score.shape, bool) for score in scores]
    masks = select(scores, [Group((0, 1), 14)], alive, [small, large])
    assert [mask.sum() for mask in masks] == [4, 10]
    assert masks[1][..., 1].all()


def test_what_does_not_fit_ends_the_draw():
    """No lesser weight group slips in past a better one that is too large."""
    scores, sizes = [np.array([0.9, 0.8, 0.7])], [np.array([2, 6, 1])]
    for room, expected in [
        (2, [1, 0, 0]),
        (7, [1, 0, 0]),
        (8, [1, 1, 0]),
        (1, [0] * 3),
    ]:
        [kept] = keep_within(scores, sizes, room)
        assert kept.astype(int).tolist() == expected


def test_dead_weights_stay_dead_inside_a_weight_group():
    """Blocks on top of a mask that was drawn without: they cost what lives of them."""
    own = INPUT4.on(stand_in(1, 8, 3))
    rng = np.random.default_rng(0)
    scores = rng.random(own.shape)
    alive = rng.random(own.shape) < 0.6
    [mask] = select([scores], [Group((0,), int(alive.sum()) // 2)], [alive], [own])
    assert not (mask & ~alive).any()
    assert 0 <= alive.sum() // 2 - mask.sum() < 4
    kept, living = own.count(mask), own.count(alive)
    assert ((kept == living) | (kept == 0)).all()


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**16), inputs=st.integers(1, 11), part=st.floats(0, 1))
def test_exchange_moves_weight_groups_of_one_size(seed, inputs, part):
    """The number of weights stays, for ragged kernels too, and so does wholeness."""
    own = WeightGroups(MatmulView((0,), (1,), (2,)), (2, inputs, 5), (1, 4, 1))
    rng = np.random.default_rng(seed)
    alive = own.expand(rng.random(own.sizes.shape) < 0.5)
    worth, wanted = rng.random((2, *own.shape))
    mask = exchange(worth, wanted, alive, part, own)
    assert mask.sum() == alive.sum()
    assert own.matches(mask)
    means = own.pool(worth)
    for size in own.distinct_sizes:
        held = (own.sizes == size) & (own.count(alive) == size)
        number = math.floor(part * held.sum())
        stays = held & (own.count(mask) > 0)
        best = np.sort(means[held])[number:]
        assert np.isin(best, means[stays]).all()


def test_exchange_leaves_alone_what_lives_in_part():
    own = INPUT4.on(stand_in(1, 8, 4))
    rng = np.random.default_rng(1)
    alive = own.expand(rng.random(own.sizes.shape) < 0.6)
    alive[0, 0, 0], alive[0, 1, 0] = True, False
    worth, wanted = rng.random((2, *own.shape))
    mask = exchange(worth, wanted, alive, 0.5, own)
    assert mask is not alive
    assert mask.sum() == alive.sum()
    np.testing.assert_array_equal(mask[0, :4, 0], alive[0, :4, 0])


@pytest.mark.parametrize("words", WORDS)
def test_shuffling_keeps_the_structure_and_the_count(words):
    own = WORDS[words].on(stand_in(3, 12, 10))
    rng = np.random.default_rng(0)
    mask = np.ones(own.shape, bool)
    [mask] = select([rng.random(own.shape)], [Group((0,), 130)], [mask], [own])
    mixed = own.shuffled(mask, rng)
    assert mixed.sum() == mask.sum()
    assert own.matches(mixed)
    assert not np.array_equal(mixed, mask)


# -- tickets -----------------------------------------------------------------------


def dense(*units, inputs=16):
    keras.utils.set_random_seed(3)
    stack = [layers.Dense(n, name=f"d{i}") for i, n in enumerate(units)]
    return keras.Sequential([keras.Input((inputs,)), *stack])


def fitting(ticket) -> bool:
    weight_groups = ticket.pruner.weight_groups(ticket.kernels)
    masks = ticket.mask_set.values()
    return all(
        own.matches(mask) for own, mask in zip(weight_groups, masks, strict=True)
    )


def few():
    x = np.random.default_rng(0).normal(size=(12, 16)).astype("float32")
    return x, np.arange(12) % 4


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DRAWN = {
    "magnitude": lambda **kw: kt.Magnitude(0.75, **kw),
    "random": lambda **kw: kt.Random(0.75, seed=1, **kw),
    "static": lambda **kw: kt.Static(0.75, seed=1, **kw),
    "synflow": lambda **kw: kt.SynFlow(0.75, rounds=5, **kw),
    "snip": lambda **kw: kt.SNIP(0.75, few(), loss=LOSS, **kw),
    "grasp": lambda **kw: kt.GraSP(0.75, few(), loss=LOSS, **kw),
    "fisher": lambda **kw: kt.Fisher(0.75, few(), loss=LOSS, **kw),
}


# Scores know nothing of structures: each word with those that cost nothing, and each
# pruner with one word at least.
PAIRS = [(p, w) for p in ("magnitude", "random") for w in ("block_1x4", "channel")]
PAIRS += [("static", "2:4"), ("synflow", "2:4"), ("synflow", "block_2")]
PAIRS += [("snip", "channel"), ("grasp", "block_2"), ("fisher", "block_1x4")]


@pytest.mark.parametrize(("pruner", "words"), PAIRS)
@pytest.mark.lowest
def test_pruners_that_draw_at_once(pruner, words):
    ticket = kt.wrap(dense(24, 12, 4), DRAWN[pruner](structure=words))
    ticket.draw(verbose=0)
    assert fitting(ticket)
    target = ticket.pruner.target(ticket.mask_set)
    largest = max(
        own.distinct_sizes[0] for own in ticket.pruner.weight_groups(ticket.kernels)
    )
    assert 0 <= target.kept - ticket.mask_set.count().kept < largest


@pytest.mark.parametrize("words", ["block_1x4", "channel"])
def test_scores_rank_weight_groups(words):
    """Magnitude keeps the weight groups of largest mean |w|, nothing else."""
    ticket = kt.wrap(dense(24, 12), kt.Magnitude(0.7, structure=words))
    ticket.draw()
    pooled = [
        (own.pool(np.abs(on_host(kernel.variable.value))), own.count(mask) > 0)
        for own, kernel, mask in zip(
            ticket.pruner.weight_groups(ticket.kernels),
            ticket.kernels,
            ticket.mask_set.values(),
            strict=True,
        )
    ]
    kept = np.concatenate([values[mask] for values, mask in pooled])
    dropped = np.concatenate([values[~mask] for values, mask in pooled])
    assert kept.min() > dropped.max()


@pytest.mark.backend_independent(False)
@pytest.mark.parametrize("rule", ["global", "uniform", "erk"])
@pytest.mark.lowest
def test_a_gradual_pattern_ends_on_exactly_n_of_m(rule):
    """It passes through denser masks, and no kernel is pruned below what it ends on."""
    ticket = kt.wrap(
        zoo.build("subclassed"),
        kt.GradualMagnitude(0.5, allocation=rule, structure="2:4"),
    )
    zoo.compile_for("subclassed", ticket)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            _ = self.model  # on JAX: the state of training, as variables
            seen.append(ticket.sparsity)

    zoo.train("subclassed", ticket, epochs=2, callbacks=[Watch()])
    assert any(0 < sparsity < 0.5 for sparsity in seen)
    for kernel, mask in zip(ticket.kernels, ticket.mask_set.values(), strict=True):
        inputs, outputs = kernel.shape
        assert (mask.reshape(inputs // 4, 4, outputs).sum(axis=1) == 2).all()


@pytest.mark.backend_independent(False)
def test_synflow_keeps_a_path_of_channels_of_any_size():
    """Down to one channel in each kernel; by mean alone the widest would be cut."""
    model = dense(3, 200, 3, 1, inputs=4)
    ticket = kt.wrap(model, kt.SynFlow(1 - 220 / 1215, rounds=4, structure="channel"))
    curve = ticket.draw(verbose=0)
    assert math.isfinite(curve.measure[-1])
    assert all(mask.any() for mask in ticket.mask_set.values())
    assert fitting(ticket)


@pytest.mark.parametrize("words", ["block_1x4", "block_2"])
def test_synflow_never_cuts_in_blocks(words):
    ticket = kt.wrap(
        dense(16, 16, 16, 4), kt.SynFlow(1 - 20 / 832, rounds=3, structure=words)
    )
    curve = ticket.draw(verbose=0)
    assert math.isfinite(curve.measure[-1])
    assert ticket.mask_set.count().kept in range(17, 21)


def test_collapse_counts_weight_groups():
    ticket = kt.wrap(dense(16, 16, 4), kt.Magnitude(0.98, structure="block_1x4"))
    # 576 weights, 12 are kept, which is a block for each kernel but not in a row.
    with pytest.raises(kt.LayerCollapseError, match="cuts the signal"):
        ticket.draw()
    ticket = kt.wrap(dense(16, 16, 4), kt.Magnitude(0.985, structure="block_1x4"))
    with pytest.raises(
        kt.LayerCollapseError,
        match=r"keep 9 of 576 .*at least 3 .*needs 4 weights in .*at most 0\.979167",
    ):
        ticket.draw()
    assert ticket.sparsity == 0


# -- what is refused ---------------------------------------------------------------


@pytest.mark.parametrize("words", ["2:4", "block_1x4"])
def test_inputs_must_be_whole_groups(words):
    """No runtime reads a dense layer whose last block is cut short."""
    model = zoo.build("sequential")
    with pytest.raises(ValueError, match=r"no multiple of 4 in: .*conv2d/kernel 3\."):
        kt.wrap(model, kt.Magnitude(0.5, structure=words))
    ticket = kt.wrap(model, kt.Magnitude(0.5, structure=words), skip="conv2d")
    ticket.draw()
    assert fitting(ticket)


@pytest.mark.parametrize("pruner", [kt.Magnitude, kt.IMP, kt.GemMiner])
def test_a_pattern_can_not_be_denser_than_it_is(pruner):
    with pytest.raises(
        ValueError,
        match=r"keep 134 of 192 weights in .*d0/kernel.*2:4 leaves at most 96.*"
        r"at least 0\.5.*received 0\.3",
    ):
        kt.wrap(dense(12), pruner(0.3, structure="2:4"))


def test_a_pattern_is_checked_by_group():
    shares = {"d0": 0.25}
    with pytest.raises(
        ValueError, match=r"keep 144 of 192 weights in .*d0/kernel, but"
    ):
        kt.wrap(dense(12, 4), kt.Magnitude(0.5, allocation=shares, structure="2:4"))


REFUSED = {
    "RigL": (lambda: kt.RigL(0.9, structure="2:4"), "RigL grows .*2:4.*kt.Static"),
    "SET": (lambda: kt.SET(0.9, structure=structure.NM(1, 4)), "SET grows .*1:4"),
    "STR": (lambda: kt.STR(0.9, structure="block_4"), "STR.*each weight by itself"),
    "EarlyBird": (
        lambda: kt.EarlyBird(0.5, structure="block_4"),
        'must be "channel"',
    ),
    "GemMiner": (
        lambda: kt.GemMiner(0.9, revive=False, structure="channel"),
        "revive=False drops each weight",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pruners_refuse_what_makes_no_sense(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_masks_drawn_without_the_structure_are_reported():
    ticket = kt.wrap(dense(12, 4), kt.Random(0.5, seed=0))
    ticket.draw()
    again = kt.wrap(ticket, kt.Magnitude(0.75, structure="block_1x4"))
    with pytest.warns(UserWarning, match=r"Block.*d0/kernel.*had lost other weights"):
        again.draw()
    assert not any(
        (new & ~old).any()
        for new, old in zip(
            again.mask_set.values(), ticket.mask_set.values(), strict=True
        )
    )


# -- what is shown and written -----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("block_1x4", "Magnitude (1x4), drawn"),
        ("block_2", "Magnitude (2x1), drawn"),
        ("2:4", "Magnitude (2:4), drawn"),
        ("channel", "Magnitude (channel), drawn"),
        ("unstructured", "Magnitude, drawn"),
    ],
)
def test_summary_names_the_structure(words, shown):
    ticket = kt.wrap(dense(12, 4), kt.Magnitude(0.5, structure=words))
    ticket.draw()
    assert shown in kt.summary(ticket, print_fn=None)


@pytest.mark.backend_independent(False)
@pytest.mark.lowest
def test_a_saved_ticket_knows_its_structure(tmp_path):
    ticket = kt.wrap(dense(12, 4), kt.Magnitude(0.5, structure="block_1x4"))
    ticket.draw()
    ticket.save(tmp_path / "t.keras")
    loaded = keras.saving.load_model(tmp_path / "t.keras")
    assert repr(loaded.pruner.structure) == "Block(size=4, axis='input')"
    assert fitting(loaded)


def stored(path):
    file = TfliteFile.parse(path.read_bytes())
    return [t for t in file.tensors() if t.values.ndim == 2]


@pytest.mark.parametrize("words", ["block_1x4", "block_4x1"])
@pytest.mark.lowest
def test_blocks_of_inputs_run_sparse_in_litert(tmp_path, words):
    """1x4: no DENSIFY in front of the dense kernels, attention's among them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 32))
    x = layers.MultiHeadAttention(2, 16)(inputs, inputs)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(32)(x))
    ticket = kt.wrap(model, kt.Magnitude(0.8, allocation="uniform", structure=words))
    ticket.draw()
    report = kt.export(ticket, tmp_path / "b.tflite", verbose=False)
    sparse = [t for t in stored(tmp_path / "b.tflite") if t.encoding != "dense"]
    assert len(sparse) == 5
    assert ("DENSIFY" in report.ops) == (words == "block_4x1")
