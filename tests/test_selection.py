"""From scores and budgets to masks: exact counts, fair ties, little to sort."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_tickets.recipe import ranking
from keras_tickets.recipe.allocation import Group, budget
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.recipe.ranking import keep_best, tie_order
from keras_tickets.recipe.selection import select

pytestmark = [pytest.mark.backend_independent, pytest.mark.lowest]


def kept(masks) -> int:
    return sum(int(mask.sum()) for mask in masks)


# -- truth tables --------------------------------------------------------------

TABLE = {
    "distinct": ([[0.3, 0.1], [0.2, 0.9, 0.15]], 2, None, [[1, 0], [0, 1, 0]]),
    "negative": ([[-3.0, -1.0, -2.0]], 2, None, [[0, 1, 1]]),
    "zeros of both signs tie": ([[0.0, -0.0, -1.0, 1.0]], 3, None, [[1, 1, 0, 1]]),
    "above the tie first": ([[0.5, 0.5, 0.7], [0.5]], 1, None, [[0, 0, 1], [0]]),
    "none": ([[0.3, 0.1], [0.2]], 0, None, [[0, 0], [0]]),
    "all": ([[0.3, 0.1], [0.2]], 3, None, [[1, 1], [1]]),
    "dead stays dead": (
        [[9.0, 1.0], [2.0, 8.0]],
        2,
        [[0, 1], [1, 0]],
        [[0, 1], [1, 0]],
    ),
    "dead goes first": (
        [[9.0, 1.0], [2.0, 8.0]],
        1,
        [[0, 1], [1, 0]],
        [[0, 0], [1, 0]],
    ),
    "all dead": ([[9.0, 1.0]], 0, [[0, 0]], [[0, 0]]),
    # Along one axis the order is 1, 3, 0, 2, 4: see the golden below.
    "all equal": ([[1.0] * 5], 2, None, [[0, 1, 0, 1, 0]]),
    "all equal, some dead": ([[1.0] * 5], 2, [[1, 0, 1, 1, 1]], [[1, 0, 0, 1, 0]]),
    "saturated": ([[1.0, 0.2, 1.0, 1.0, 0.9]], 2, None, [[1, 0, 0, 1, 0]]),
    "same rank goes to the first": ([[1.0], [1.0], [1.0]], 2, None, [[1], [1], [0]]),
    "an empty tensor": ([[], [0.2, 0.3]], 1, None, [[], [0, 1]]),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("case", TABLE)
def test_keep_best(case, dtype):
    """The highest scores survive, the dead go first, ties follow `tie_order`."""
    scores, number, alive, expected = TABLE[case]
    scores = [np.array(score, dtype) for score in scores]
    alive = alive and [np.array(mask, bool) for mask in alive]
    masks = keep_best(scores, number, alive)
    assert [mask.astype(int).tolist() for mask in masks] == expected
    assert all(mask.dtype == bool for mask in masks)


def test_shapes_come_back():
    scores = [np.arange(24.0).reshape(2, 3, 4), np.zeros((5, 1))]
    masks = keep_best(scores, 20)
    assert [mask.shape for mask in masks] == [(2, 3, 4), (5, 1)]
    np.testing.assert_array_equal(masks[0], scores[0] > 3)


def test_integers_and_flags_can_be_scores():
    (mask,) = keep_best([np.array([3, -1, 2])], 2)
    assert mask.tolist() == [True, False, True]
    (mask,) = keep_best([np.array([False, True, False])], 1)
    assert mask.tolist() == [False, True, False]


@pytest.mark.parametrize("number", [-1, 4])
def test_budget_out_of_range(number):
    """More than is alive cannot be kept, and nothing is rounded in silence."""
    alive = [np.array([True, True, False]), np.array([True])]
    scores = [np.ones(3), np.ones(1)]
    with pytest.raises(ValueError, match=rf"keep {number} of 3 .* from 0 to 3"):
        keep_best(scores, number, alive)


# -- laws over all scores and budgets ------------------------------------------

LEVELS = [-1.0, -0.0, 0.0, 1e-30, 0.5, 1.0]
SHAPES = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=4,
)


@st.composite
def networks(draw, distinct: bool = False):
    """Scores for a few tensors, which of them are alive, and a budget that fits."""
    shapes = draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.lists(st.sampled_from(LEVELS), min_size=1, unique=True))
    total = sum(math.prod(shape) for shape in shapes)
    values = rng.permutation(total) if distinct else rng.choice(levels, total)
    alive = rng.random(total) < draw(st.sampled_from([0.3, 0.9, 1.0]))
    number = draw(st.integers(0, int(alive.sum())))
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def split(flat):
        parts = zip(np.split(flat, ends), shapes, strict=True)
        return [part.reshape(shape) for part, shape in parts]

    return split(values.astype("float32")), split(alive), number


def flat(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


@settings(deadline=None, max_examples=200)
@given(networks())
def test_count_is_exact_under_any_ties(network):
    """Exactly the budget is kept, of the living only, and none below the dropped."""
    scores, alive, number = network
    masks = keep_best(scores, number, alive)
    assert kept(masks) == number
    mask, living, values = flat(masks), flat(alive), flat(scores)
    assert not (mask & ~living).any()
    dropped = living & ~mask
    if mask.any() and dropped.any():
        assert values[mask].min() >= values[dropped].max()


@settings(deadline=None, max_examples=200)
@given(networks(distinct=True))
def test_distinct_scores_agree_with_a_full_sort(network):
    scores, alive, number = network
    values = np.where(flat(alive), flat(scores), -np.inf)
    best = np.argsort(-values, kind="stable")[:number]
    expected = np.zeros(values.size, bool)
    expected[best] = True
    np.testing.assert_array_equal(flat(keep_best(scores, number, alive)), expected)


@settings(deadline=None, max_examples=200)
@given(networks(), st.floats(0, 1))
def test_masks_are_nested_when_the_budget_falls(network, fraction):
    """A smaller budget keeps a part of the larger one, drawn at once or in two."""
    scores, alive, number = network
    first = keep_best(scores, number, alive)
    fewer = round(fraction * number)
    second = keep_best(scores, fewer, first)
    assert not (flat(second) & ~flat(first)).any()
    np.testing.assert_array_equal(flat(second), flat(keep_best(scores, fewer, alive)))


@pytest.mark.parametrize("levels", [3, 40, 10**9])
@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.7, 0.999])
@pytest.mark.parametrize("bracket", ["sampled", "too low", "too high"])
def test_a_bracket_changes_the_time_only(monkeypatch, bracket, fraction, levels):
    """Large networks are searched between two quantiles of a sample."""
    rng = np.random.default_rng(0)
    scores = [
        rng.integers(0, levels, size=shape).astype("float32")
        for shape in ((30, 50), (7,), (3, 3, 40, 10))
    ]
    alive = [rng.random(score.shape) < 0.8 for score in scores]
    number = round(fraction * sum(int(mask.sum()) for mask in alive))
    expected = keep_best(scores, number, alive)
    monkeypatch.setattr(ranking, "SAMPLE", 16)
    monkeypatch.setattr(ranking, "CHUNK", 100)
    if bracket != "sampled":
        wrong = {"too low": (-3.0, -2.0), "too high": (2.0 * levels, 3.0 * levels)}
        monkeypatch.setattr(ranking, "_bracket", lambda *_: wrong[bracket])
    for a, b in zip(keep_best(scores, number, alive), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=50)
@given(networks())
def test_scores_and_alive_are_not_written_to(network):
    scores, alive, number = network
    for array in (*scores, *alive):
        array.flags.writeable = False
    assert kept(keep_best(scores, number, alive)) == number


# -- ties ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [
        (
            (5,),
            [
                9223372036854775808,
                2177342782468421633,
                13578057601791619074,
                6532028347405264899,
                17932743166728462340,
            ],
        ),
        (
            (2, 3),
            [
                9223372036854775808,
                1288325974074488833,
                11800023985003753474,
                4701663079357100033,
                15213361090286364674,
                7278315027506077699,
            ],
        ),
        ((), [9223372036854775808]),
    ],
)
def test_tie_order_golden(shape, ranks):
    """The order is pinned to the bit: the same scores give the same ticket, ever."""
    assert tie_order(np.arange(len(ranks)), shape).tolist() == ranks


def test_tie_order_ranks_are_distinct():
    """Up to rounding no two positions of a tensor share a rank."""
    for shape in [(10_000,), (200, 300), (3, 3, 64, 64), (3, 3, 3, 16, 16)]:
        ranks = tie_order(np.arange(math.prod(shape)), shape)
        assert ranks.dtype == np.uint64
        assert np.unique(ranks).size == ranks.size


@settings(deadline=None, max_examples=50)
@given(SHAPES.map(lambda shapes: shapes[0]), st.randoms(use_true_random=False))
def test_tie_order_depends_on_the_position_alone(shape, random):
    """Any subset, in any order, is ranked as it is among all."""
    ranks = tie_order(np.arange(math.prod(shape)), shape)
    chosen = random.sample(range(ranks.size), random.randint(0, ranks.size))
    np.testing.assert_array_equal(
        tie_order(np.array(chosen, int), shape), ranks[np.array(chosen, int)]
    )


def unfair(masks, room: float) -> list[str]:
    """Return what keeps noticeably more or less than its part of a tied network.

    Checked are each tensor, and each slice along each axis of it: a row, a column,
    a channel, a row of filter taps. A slice may miss its part by `room` entries and
    two percent of its size; one whose part is more than that must not be empty.
    """
    total = sum(mask.size for mask in masks)
    fraction = kept(masks) / total
    found = []
    for number, mask in enumerate(masks):
        slices = {"all": mask.sum()[None]}
        for axis in range(mask.ndim):
            others = tuple(a for a in range(mask.ndim) if a != axis)
            slices[f"axis {axis}"] = mask.sum(axis=others)
        for name, counts in slices.items():
            size = mask.size / counts.size
            worst = np.abs(counts - fraction * size).max()
            if worst > room + 0.02 * size:
                found.append(f"tensor {number} {mask.shape} {name}: {counts.tolist()}")
    return found


FAIR = {
    "three vectors": [(1280,), (4096,), (320,)],
    "a convolution": [(3, 3, 64, 64)],
    "a pointwise one": [(1, 1, 64, 64)],
    "Fibonacci": [(34, 55)],
    "Fibonacci, turned": [(55, 34)],
    "Fibonacci, far apart": [(21, 13), (144, 89)],
    "primes": [(7, 89)],
    "a power of two": [(128, 128)],
    "convolutions and a head": [(3, 3, 16, 16), (3, 3, 16, 32), (256, 10)],
    "the same shape five times": [(64, 64)] * 5,
    "thin": [(1, 500), (500, 1)],
    "volume": [(3, 3, 3, 8, 16)],
}
FRACTIONS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("case", FAIR)
def test_ties_are_thinned_out_evenly(case, fraction):
    """Constant scores: each tensor, row, column and tap keeps the same fraction."""
    scores = [np.full(shape, 0.7) for shape in FAIR[case]]
    total = sum(score.size for score in scores)
    masks = keep_best(scores, round(fraction * total))
    assert not unfair(masks, room=4)
    assert kept(masks) == round(fraction * total)


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("case", [case for case in FAIR if case != "thin"])
def test_plain_index_order_is_caught(case, fraction):
    """The check above does see the faults it is there for.

    By index over the concatenation the last tensors are emptied; by index inside
    each tensor the last rows and the corners of the filters.
    """
    sizes = [math.prod(shape) for shape in FAIR[case]]
    first = np.arange(sum(sizes)) < round(fraction * sum(sizes))
    masks = np.split(first, np.cumsum(sizes)[:-1])
    masks = [m.reshape(shape) for m, shape in zip(masks, FAIR[case], strict=True)]
    if len(masks) > 1:
        assert unfair(masks, room=4)
    inside = [
        (np.arange(size) < round(fraction * size)).reshape(shape)
        for size, shape in zip(sizes, FAIR[case], strict=True)
    ]
    if max(mask.ndim for mask in inside) > 1:
        assert unfair(inside, room=4)


@settings(deadline=None, max_examples=100)
@given(
    shapes=st.lists(
        st.one_of(
            st.tuples(st.integers(1, 60), st.integers(1, 60)),
            st.tuples(*[st.integers(1, 5)] * 2, *[st.integers(1, 30)] * 2),
        ),
        min_size=1,
        max_size=3,
    ),
    fraction=st.floats(0, 1),
)
def test_ties_are_fair_for_any_shape(shapes, fraction):
    scores = [np.zeros(shape) for shape in shapes]
    total = sum(score.size for score in scores)
    assert not unfair(keep_best(scores, round(fraction * total)), room=12)


def test_saturated_scores_empty_no_tensor():
    """Scores clipped to one, as learned masks are: the last layer once lost all."""
    rng = np.random.default_rng(0)
    scores = []
    for size, saturated in [(1280, 331), (4096, 527), (320, 126)]:
        score = rng.random(size) * 0.99
        score[rng.choice(size, saturated, replace=False)] = 1.0
        scores.append(score)
    masks = keep_best(scores, 570)
    for mask, score in zip(masks, scores, strict=True):
        tied = score == 1.0
        assert not (mask & ~tied).any()
        assert mask.sum() / tied.sum() == pytest.approx(570 / 984, abs=0.08)


# -- groups --------------------------------------------------------------------


def all_alive(scores) -> list[np.ndarray]:
    return [np.ones(score.shape, bool) for score in scores]


def singles(scores) -> list[WeightGroups]:
    return [WeightGroups.single(score.shape) for score in scores]


def test_select_pools_or_shares_out():
    """Pooled tensors compete; shares are met whatever the scores say."""
    scores = [np.array([9.0, 8.0, 7.0, 6.0]), np.array([1.0, 2.0, 3.0, 4.0])]
    alive = all_alive(scores)
    pooled = select(scores, [Group((0, 1), 4)], alive, singles(scores))
    assert [mask.sum() for mask in pooled] == [4, 0]
    shared = select(scores, [Group((0, 1), 4, (2.0, 2.0))], alive, singles(scores))
    assert [mask.tolist() for mask in shared] == [
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_select_leaves_others_alone():
    """A tensor in no group keeps its mask; members are found by index."""
    scores = [np.arange(4.0), np.arange(4.0), np.arange(4.0)]
    alive = all_alive(scores)
    alive[1][0] = False
    masks = select(scores, [Group((2,), 1), Group((0,), 3)], alive, singles(scores))
    assert [mask.astype(int).tolist() for mask in masks] == [
        [0, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 0, 1],
    ]


def test_select_gives_the_share_of_the_dead_to_the_living():
    """A tensor with fewer alive than its share: the others make up for it."""
    scores = [np.arange(10.0), np.arange(10.0)]
    alive = all_alive(scores)
    alive[0][2:] = False
    masks = select(scores, [Group((0, 1), 10, (5.0, 5.0))], alive, singles(scores))
    assert [mask.sum() for mask in masks] == [2, 8]
    assert not masks[0][2:].any()


def test_select_can_not_keep_more_than_is_alive():
    """A budget above what lives leaves all that lives, and revives nothing."""
    scores = [np.arange(10.0)]
    alive = [np.arange(10) % 2 == 0]
    for shares in (None, (8.0,)):
        (mask,) = select(scores, [Group((0,), 8, shares)], alive, singles(scores))
        np.testing.assert_array_equal(mask, alive[0])


@pytest.mark.parametrize("level", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("pooled", [True, False])
@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES, sparsity=st.floats(0, 0.999))
def test_select_is_exact_for_constant_scores(level, pooled, shapes, sparsity):
    """`zeros == round(sparsity * N)`, for scores that are all tied too."""
    scores = [np.full(shape, level) for shape in shapes]
    total = sum(score.size for score in scores)
    shares = None if pooled else tuple((1 - sparsity) * s.size for s in scores)
    group = Group(tuple(range(len(scores))), budget(total, sparsity), shares)
    masks = select(scores, [group], all_alive(scores), singles(scores))
    assert total - kept(masks) == round(sparsity * total)


@pytest.mark.parametrize(
    ("total", "sparsity", "expected"),
    [
        (10, 0.9, 1),
        (10, 0.0, 10),
        (3, 0.5, 1),
        (5, 0.5, 3),
        (1000, 0.999, 1),
        (0, 0.5, 0),
    ],
)
def test_budget(total, sparsity, expected):
    assert budget(total, sparsity) == expected


# -- work ----------------------------------------------------------------------


@pytest.fixture
def work(monkeypatch):
    """How many entries NumPy was asked to sort, and to part, in all."""
    entries = {"sorted": 0, "parted": 0}

    def counted(kind, function):
        def count(array, *args, **kwargs):
            entries[kind] += np.size(array)
            return function(array, *args, **kwargs)

        return count

    for kind, names in {
        "sorted": ("sort", "argsort", "lexsort", "unique"),
        "parted": ("partition", "argpartition"),
    }.items():
        for name in names:
            monkeypatch.setattr(np, name, counted(kind, getattr(np, name)))
    return entries


@pytest.mark.parametrize(("tied", "parted"), [(False, 0.1), (True, 1.0)])
def test_work_is_linear(tied, parted, work):
    """A sample is sorted, and parted what is close to the threshold or tied at it."""
    scores = np.random.default_rng(0).random((1500, 2000), "float32")
    scores = np.ones_like(scores) if tied else scores
    assert kept(keep_best([scores], scores.size // 10)) == scores.size // 10
    assert 0 < work["sorted"] <= 0.02 * scores.size
    assert 0 < work["parted"] <= parted * scores.size
