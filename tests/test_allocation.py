"""How many weights each tensor keeps: published densities and exact totals."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_tickets import allocation
from keras_tickets.kernels import Kernel, MatmulView, find_kernels, matmul_view

pytestmark = [pytest.mark.backend_independent, pytest.mark.lowest]

RULES = ("uniform", "er", "erk")
CSV = Path(__file__).parent / "data" / "resnet50_erk.csv"
with CSV.open(newline="") as file:
    RESNET50 = list(csv.DictReader(file))
COLUMNS = [column for column in RESNET50[0] if column.startswith("ER")]


DENSE, CONV = layers.Dense(1), layers.Conv2D(1, 1)


def kernel(shape, path: str = "kernel", layer: keras.Layer | None = None) -> Kernel:
    """Return a kernel of `shape` that allocates no memory."""
    shape = tuple(shape)
    if layer is None:
        layer = DENSE if len(shape) == 2 else CONV
    return Kernel(SimpleNamespace(shape=shape, name="kernel"), layer, path)


def kernels(*shapes) -> list[Kernel]:
    return [kernel(shape, f"layer{i}/kernel") for i, shape in enumerate(shapes)]


def densities(rule: str, members, sparsity: float) -> np.ndarray:
    return allocation.get(rule).densities(members, sparsity)


def budgets(rule, members, sparsity: float, final: float | None = None) -> list[int]:
    """Return how many weights each kernel keeps under a rule that shares out."""
    kept = [0] * len(members)
    seen: list[int] = []
    final = sparsity if final is None else final
    for group in allocation.get(rule).groups(members, sparsity, final):
        sizes = [members[i].size for i in group.members]
        shares = sizes if group.shares is None else group.shares
        parts = allocation.round_shares(shares, group.keep, sizes)
        for i, part in zip(group.members, parts, strict=True):
            kept[i] = part
        seen += group.members
    assert sorted(seen) == list(range(len(members)))
    return kept


# -- published densities -------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
def test_resnet50_densities(column):
    """ER and ERK give every one of the 54 published densities of ResNet-50."""
    rule, sparsity = column.split("_")
    members = [kernel(map(int, row["kernel"].split("x"))) for row in RESNET50]
    assert sum(member.size for member in members) == 25_502_912
    np.testing.assert_allclose(
        densities(rule, members, float(sparsity)),
        [float(row[column]) for row in RESNET50],
        rtol=0,
        atol=1e-4,
    )


LENET = ((784, 300), (300, 100), (100, 10))
RESNET20 = (
    (3, 3, 3, 16),
    *[(3, 3, 16, 16)] * 6,
    (3, 3, 16, 32),
    *[(3, 3, 32, 32)] * 5,
    (3, 3, 32, 64),
    *[(3, 3, 64, 64)] * 5,
    (64, 10),
)
SMALL_NETS = [
    (LENET, 0.8, [0.162241, 0.469362, 1.0]),
    (LENET, 0.9, [0.079568, 0.230189, 1.0]),
    (LENET, 0.95, [0.038484, 0.111334, 0.918507]),
    (LENET, 0.98, [0.015394, 0.044534, 0.367403]),
    (RESNET20, 0.8, [1, 0.617937, 0.439061, 0.284576, 0.207334, 0.13619, 1]),
    (RESNET20, 0.9, [1, 0.302749, 0.215111, 0.139424, 0.10158, 0.066724, 1]),
    (RESNET20, 0.95, [0.517877, 0.147595, 0.10487, 0.067971, 0.049522, 0.032529, 1]),
    (
        RESNET20,
        0.98,
        [0.207186, 0.059048, 0.041955, 0.027193, 0.019812, 0.013014, 0.413958],
    ),
]


@pytest.mark.parametrize(("shapes", "sparsity", "expected"), SMALL_NETS)
def test_small_net_erk_densities(shapes, sparsity, expected):
    """ERK on LeNet-300-100 and on ResNet-20 with option A shortcuts.

    The published numbers solve for counts that are rounded up in each tensor, ours
    for the total: at the sparsity of those counts they agree to every digit, and at
    the stated one within one weight for each tensor.
    """
    members = kernels(*shapes)
    distinct = dict.fromkeys(shapes)
    golden = dict(zip(distinct, expected, strict=True))
    wanted = [golden[shape] for shape in shapes]
    total = sum(member.size for member in members)
    kept = sum(m.size - math.floor(sparsity * m.size) for m in members)
    at_their_counts = densities("erk", members, 1 - kept / total)
    np.testing.assert_allclose(at_their_counts, wanted, rtol=0, atol=1e-6)
    one_each = len(shapes) / ((1 - sparsity) * total)
    np.testing.assert_allclose(
        densities("erk", members, sparsity), wanted, rtol=one_each
    )


# Of the paper's code: densities of the nineteen convolutions of ResNet-20.
SMART = [
    (
        0.0144,
        [
            *(0.1008, 0.0912, 0.0821, 0.0734, 0.0653, 0.0576, 0.0504, 0.0437, 0.0374),
            *(0.0317, 0.0264, 0.0216, 0.0173, 0.0134, 0.0101, 0.0072, 0.0048, 0.0029),
            0.0014,
        ],
    ),
    (0.0372, [0.2687, *[None] * 17, 0.0038]),
    (0.2, [*[1.0] * 7, *[None] * 12]),
]


@pytest.mark.parametrize(("kept", "expected"), SMART)
def test_smart_ratio_of_resnet20(kept, expected):
    members = kernels(*RESNET20)
    got = densities("smart_ratio", members, 1 - kept)
    assert got[-1] == pytest.approx(0.3)
    for ours, golden in zip(got, [*expected, 0.3], strict=True):
        assert golden is None or ours == pytest.approx(golden, abs=6e-5)
    # Theirs are rounded down in each layer: 3857, 9972, 53662.
    total = sum(member.size for member in members)
    assert sum(budgets("smart_ratio", members, 1 - kept)) == round(kept * total)


@pytest.mark.parametrize(
    ("shapes", "sparsity", "expected"),
    [
        (((1, 10), (10, 10), (10, 10), (10, 4)), 0.7, None),
        # What full layers cannot take goes to the classifier.
        (((4, 4), (4, 4), (4, 10)), 0.25, [1.0, 1.0, 22 / 40]),
        (((4, 4), (4, 4), (4, 10)), 0.0, [1.0, 1.0, 1.0]),
        # A last layer with a window is none, nor is a single layer.
        (((3, 3, 4, 4), (3, 3, 4, 4)), 0.5, [0.75, 0.25]),
        (((8, 10),), 0.5, [0.5]),
        # A 1x1 convolution is.
        (((3, 3, 4, 4), (1, 1, 4, 10)), 0.5, [(92 - 12) / 144, 0.3]),
    ],
)
def test_smart_ratio_by_hand(shapes, sparsity, expected):
    members = kernels(*shapes)
    got = densities("smart_ratio", members, sparsity)
    if expected is None:
        # Ratios 20, 12, 6 over 10, 100, 100 weights share 75 - 12 of 250.
        gamma = 63 / (20 * 10 + 12 * 100 + 6 * 100)
        expected = [20 * gamma, 12 * gamma, 6 * gamma, 0.3]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_smart_ratio_of_vgg_divides_by_the_square_of_the_depth():
    members = kernels((3, 8), (8, 8), (8, 8), (8, 10))
    sizes = np.array([kernel.size for kernel in members])
    depth = np.arange(1, 4)
    ratio = ((4 - depth + 1) ** 2 + (4 - depth + 1)) / depth**2
    scale = (0.3 * sizes.sum() - 0.3 * sizes[-1]) / (ratio * sizes[:-1]).sum()
    # The first layer would keep more than it has; the next takes it.
    expected = np.append(scale * ratio, 0.3)
    surplus = (expected[0] - 1) * sizes[0]
    assert surplus > 0
    expected[:2] = 1, expected[1] + surplus / sizes[1]
    got = densities(allocation.SmartRatio("vgg"), members, 0.7)
    np.testing.assert_allclose(got, expected)
    with pytest.raises(ValueError, match=r"form must be one of.*'lenet'"):
        allocation.SmartRatio("lenet")


def test_smart_ratio_passes_on_what_a_full_layer_can_not_take():
    """Three layers of 10: ratios 12, 6 and the classifier's share of 3."""
    members = kernels((2, 5), (5, 2), (2, 5))
    # 30 weights, 16 kept, 3 by the classifier: 13 * 12 / 18 > 8; no layer is full.
    np.testing.assert_allclose(
        densities("smart_ratio", members, 14 / 30), [13 / 15, 13 / 30, 0.3]
    )
    # 20 kept: 17 * 2 / 3 = 11.3, of which 1.3 go on.
    np.testing.assert_allclose(
        densities("smart_ratio", members, 10 / 30), [1.0, 0.7, 0.3]
    )


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_smart_ratio_is_exact_and_falls_with_depth(data):
    shapes = data.draw(SHAPES)
    sparsity = data.draw(SPARSITIES)
    members = kernels(*shapes)
    sizes = np.array([member.size for member in members])
    try:
        got = densities("smart_ratio", members, sparsity)
    except ValueError as error:
        assert "of the classifier" in str(error)  # noqa: PT017
        assert 0.3 * sizes[-1] >= (1 - sparsity) * sizes.sum()
        return
    assert (got >= 0).all()
    assert (got <= 1 + 1e-9).all()
    assert got @ sizes == pytest.approx((1 - sparsity) * sizes.sum(), rel=1e-9)
    assert (np.diff(got[:-1]) <= 1e-9).all()
    total = int(sizes.sum())
    kept = budgets("smart_ratio", members, sparsity)
    assert sum(kept) == total - round(sparsity * total)


def test_smart_ratio_of_too_few_weights():
    with pytest.raises(ValueError, match=r"30% of .*'layer1/kernel', 12 of 40 .*0\.9"):
        densities("smart_ratio", kernels((6, 10), (4, 10)), 0.9)


def test_er_is_erk_for_dense_layers():
    for sparsity in (0.5, 0.8, 0.95):
        np.testing.assert_array_equal(
            densities("er", kernels(*LENET), sparsity),
            densities("erk", kernels(*LENET), sparsity),
        )


def test_er_does_not_count_taps():
    """ER sees the channels of a convolution only; ERK sees the window as well."""
    members = kernels((3, 3, 16, 32), (64, 32))
    er, erk = (densities(rule, members, 0.9) for rule in ("er", "erk"))
    assert er[0] / er[1] == pytest.approx(((16 + 32) / (16 * 32)) / (96 / 2048))
    assert erk[0] / erk[1] == pytest.approx((54 / 4608) / (96 / 2048))


# -- laws over all shapes and sparsities ---------------------------------------

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 12)] * 2),
    ),
    min_size=1,
    max_size=8,
)
SPARSITIES = st.one_of(
    st.sampled_from([0.0, 0.5, 0.9, 0.99]), st.floats(0, 0.999, allow_nan=False)
)


@pytest.mark.parametrize("rule", ["global", *RULES])
@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_total_is_exact(rule, shapes, sparsity):
    """`kept == total - round(sparsity * total)`, and no tensor is overfull."""
    members = kernels(*shapes)
    total = sum(member.size for member in members)
    kept = budgets(rule, members, sparsity)
    assert sum(kept) == total - round(sparsity * total)
    for part, member in zip(kept, members, strict=True):
        assert 0 <= part <= member.size


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_densities_hold_the_total(rule, shapes, sparsity):
    """Densities lie in (0, 1], hold the total, and rounding moves each below one."""
    members = kernels(*shapes)
    sizes = np.array([member.size for member in members])
    shares = densities(rule, members, sparsity) * sizes
    assert (shares > 0).all()
    assert (shares <= sizes * (1 + 1e-12)).all()
    assert shares.sum() == pytest.approx((1 - sparsity) * sizes.sum(), rel=1e-9)
    assert np.abs(budgets(rule, members, sparsity) - shares).max() < 1 + 1e-6


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES, first=SPARSITIES, second=SPARSITIES)
def test_densities_fall_with_sparsity(rule, shapes, first, second):
    """No tensor gets denser when the network gets sparser."""
    low, high = sorted((first, second))
    members = kernels(*shapes)
    before, after = (densities(rule, members, s) for s in (low, high))
    assert (after <= before + 1e-12).all()


@pytest.mark.parametrize("rule", ["er", "erk"])
@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_densities_are_proportional_below_one(rule, shapes, sparsity):
    """What is not capped keeps the ratios of the rule; what is capped has the most."""
    members = kernels(*shapes)
    got = densities(rule, members, sparsity)
    raw = np.array(
        [
            (sum(m.shape) if rule == "erk" else sum(m.shape[-2:]))
            / (m.size if rule == "erk" else math.prod(m.shape[-2:]))
            for m in members
        ]
    )
    open_ = got < 1 - 1e-9
    if open_.any():
        eps = (got / raw)[open_]
        assert eps == pytest.approx(eps[0], rel=1e-9)
        assert (eps[0] * raw[~open_] >= 1 - 1e-6).all()


# -- rounding ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "total", "capacity", "expected"),
    [
        ([1.5, 2.2, 0.3], 4, [9, 9, 9], [2, 2, 0]),
        ([0.5, 0.5, 0.5], 1, [9, 9, 9], [1, 0, 0]),
        ([0.2, 0.7, 0.1], 1, [9, 9, 9], [0, 1, 0]),
        ([1.6, 1.6, 1.6], 4, [9, 9, 9], [2, 1, 1]),
        ([2.0, 3.0], 5, [9, 9], [2, 3]),
        ([2.9, 1.9, 0.2], 5, [9, 9, 9], [3, 2, 0]),
        # What a full tensor cannot take goes on to the others.
        ([5.0, 1.0], 6, [2, 9], [2, 4]),
        ([5.0, 1.0, 1.0], 7, [1, 9, 9], [1, 3, 3]),
        ([4.0, 4.0, 4.0], 6, [0, 5, 1], [0, 5, 1]),
        # A total below the whole parts takes some back.
        ([3.0, 2.0], 4, [9, 9], [2, 2]),
        ([3.0, 0.0], 0, [9, 9], [0, 0]),
        ([], 0, [], []),
    ],
)
def test_round_shares(shares, total, capacity, expected):
    """Largest remainder within the capacities."""
    assert allocation.round_shares(shares, total, capacity) == expected


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(
        st.tuples(st.floats(0, 50, allow_nan=False), st.integers(0, 50)),
        min_size=1,
        max_size=12,
    ),
    fraction=st.floats(0, 1),
)
def test_round_shares_is_exact_within_capacity(rows, fraction):
    """Any total that fits is met exactly, whatever the shares ask for."""
    shares, capacity = zip(*rows, strict=True)
    total = round(fraction * sum(capacity))
    given_ = allocation.round_shares(shares, total, capacity)
    assert sum(given_) == total
    assert all(0 <= g <= c for g, c in zip(given_, capacity, strict=True))


def test_round_shares_refuses_more_than_is_alive():
    with pytest.raises(ValueError, match="keep 8 weights where only 7 may be kept"):
        allocation.round_shares([4.0, 4.0], 8, [3, 4])


# -- explicit ------------------------------------------------------------------

NAMED = [
    kernel((3, 3, 3, 16), "net/stem/kernel"),
    kernel((3, 3, 16, 16), "net/block_1/kernel"),
    kernel((3, 3, 16, 32), "net/block_2/kernel"),
    kernel((32, 10), "net/head/kernel"),
]


def test_explicit_names_tensors():
    """A named tensor keeps its own fraction, the rest follow `rest`."""
    rule = allocation.Explicit({"stem": 0.0, "head": 0.5})
    kept = budgets(rule, NAMED, 0.9)
    assert kept[0] == NAMED[0].size
    assert kept[3] == 160
    rest = NAMED[1].size + NAMED[2].size
    assert kept[1] + kept[2] == rest - round(0.9 * rest)
    assert kept[1] / NAMED[1].size == pytest.approx(0.1, abs=1e-3)


def test_explicit_first_match_wins():
    rule = allocation.Explicit({"block_1": 0.25, "block": 0.75, "^net": 0.5})
    kept = budgets(rule, NAMED, 0.9)
    sizes = [member.size for member in NAMED]
    assert kept == [
        sizes[0] - round(0.5 * sizes[0]),
        sizes[1] - round(0.25 * sizes[1]),
        sizes[2] - round(0.75 * sizes[2]),
        sizes[3] - round(0.5 * sizes[3]),
    ]


@pytest.mark.parametrize("rest", ["uniform", "er", "erk"])
def test_explicit_rest(rest):
    """`rest` allocates what is not named as if it were the whole network."""
    rule = allocation.Explicit({"head": 0.5}, rest=rest)
    assert budgets(rule, NAMED, 0.9)[:3] == budgets(rest, NAMED[:3], 0.9)


def test_explicit_rest_global_is_pooled():
    groups = allocation.Explicit({"block_1": 0.5}, rest="global").groups(NAMED, 0.9, 1)
    assert [group.members for group in groups] == [(1,), (0, 2, 3)]
    assert groups[1].shares is None


@settings(deadline=None, max_examples=40)
@given(
    own=st.floats(0, 0.999, allow_nan=False),
    other=st.floats(0, 0.999, allow_nan=False),
    sparsity=SPARSITIES,
)
def test_explicit_totals_are_exact(own, other, sparsity):
    """Each named tensor, and the rest together, keep their exact counts."""
    kept = budgets({"stem": own, "block_2": other}, NAMED, sparsity)
    sizes = [member.size for member in NAMED]
    rest = sizes[1] + sizes[3]
    assert kept[0] == sizes[0] - round(own * sizes[0])
    assert kept[2] == sizes[2] - round(other * sizes[2])
    assert kept[1] + kept[3] == rest - round(sparsity * rest)


def test_explicit_follows_the_progress_of_a_schedule():
    """Half way to the final sparsity a named tensor is half way to its own."""
    rule = allocation.Explicit({"head": 0.6})
    assert budgets(rule, NAMED, 0.0, final=0.8)[3] == 320
    assert budgets(rule, NAMED, 0.4, final=0.8)[3] == 320 - 96
    assert budgets(rule, NAMED, 0.8, final=0.8)[3] == 320 - 192
    assert budgets(rule, NAMED, 0.0, final=0.0)[3] == 320 - 192


def test_dict_is_short_for_explicit():
    rule = allocation.get({"stem": 0.0})
    assert isinstance(rule, allocation.Explicit)
    assert rule.sparsities == {"stem": 0.0}
    assert isinstance(rule.rest, allocation.Uniform)


@pytest.mark.parametrize("wrong", [1.0, -0.1, 90, math.nan])
def test_explicit_sparsity_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"'head' must lie in \[0, 1\). Received"):
        allocation.Explicit({"head": wrong})


def test_explicit_name_that_is_nowhere():
    """A misspelt name is an error, as it is in a filter: not silently the rest."""
    rule = allocation.Explicit({"head": 0.5, "stme": 0.0})
    with pytest.raises(ValueError, match="'stme'"):
        rule.groups(NAMED, 0.9, 0.9)


@pytest.mark.parametrize("wrong", ["erdos", 0.9, None, ["erk"]])
def test_unknown_allocation(wrong):
    with pytest.raises(ValueError, match=r"is not an allocation.*'ERK'"):
        allocation.get(wrong)


# -- the matrix products a kernel takes part in --------------------------------

VIEWS = [
    (layers.Dense(5), (4,), MatmulView((), (0,), (1,))),
    (layers.Conv1D(5, 3), (8, 4), MatmulView((0,), (1,), (2,))),
    (layers.Conv2D(6, 3, groups=2), (8, 8, 4), MatmulView((0, 1), (2,), (3,))),
    (layers.Conv3D(5, 2), (4, 4, 4, 3), MatmulView((0, 1, 2), (3,), (4,))),
    (layers.Conv1DTranspose(5, 3), (8, 4), MatmulView((0,), (2,), (1,))),
    (layers.Conv2DTranspose(5, 3), (8, 8, 4), MatmulView((0, 1), (3,), (2,))),
    (layers.Conv3DTranspose(5, 2), (4, 4, 4, 3), MatmulView((0, 1, 2), (4,), (3,))),
    (
        layers.EinsumDense("abc,cde->abde", (None, 2, 3)),
        (6, 4),
        MatmulView((), (0,), (1, 2)),
    ),
    (
        layers.EinsumDense("abde,dec->abc", (None, 7)),
        (6, 2, 3),
        MatmulView((), (0, 1), (2,)),
    ),
    (layers.EinsumDense("...x,xy->...y", 5), (6, 4), MatmulView((), (0,), (1,))),
]


@pytest.mark.parametrize(
    ("layer", "inputs", "view"), VIEWS, ids=lambda value: getattr(value, "name", None)
)
def test_matmul_view(layer, inputs, view):
    """Inputs are what the layer sums over, outputs what it produces."""
    layer = layer.from_config({**layer.get_config(), "kernel_initializer": "zeros"})
    layer.build((None, *inputs))
    rank = len(layer.kernel.shape)
    assert matmul_view(layer, rank) == view
    assert sorted((*view.taps, *view.inputs, *view.outputs)) == list(range(rank))


def test_view_extents_agree_with_the_layer():
    """A transposed convolution of 4 into 5 channels has 4 inputs and 5 outputs."""
    for cls in (layers.Conv2D, layers.Conv2DTranspose):
        layer = cls(5, 3, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((8, 8, 4)), layer])
        (found,) = find_kernels(model)
        assert found.extent(found.view.inputs) == 4
        assert found.extent(found.view.outputs) == 5
        assert found.extent(found.view.taps) == 9


def test_erk_of_attention_follows_the_matrix_product():
    """The heads of an attention projection count as one output axis."""
    split = kernel((64, 4, 16), layer=layers.EinsumDense("abc,cde->abde", (None, 4, 1)))
    flat = kernel((64, 64))
    other = kernel((256, 128))
    for rule in ("er", "erk"):
        np.testing.assert_allclose(
            densities(rule, [split, other], 0.9), densities(rule, [flat, other], 0.9)
        )
