"""Which variables can be pruned, why the others cannot, and the filters."""

from __future__ import annotations

import keras
import pytest
from keras import layers

import keras_tickets as kt
from keras_tickets.kernels import Exclusion, choose_kernels, find_kernels, why_not

pytestmark = pytest.mark.backend_independent

BIAS, NORM, DEPTHWISE = "bias", "normalization", "depthwise kernel"
TABLE_OF = "embedding or position table"
FROZEN = "frozen: trainable is False"
QUANTIZED = "quantized: prune before quantizing"
LORA = "LoRA is enabled on the layer: prune before enable_lora"
SPECTRAL = "rewritten by SpectralNormalization in every step"

# Values do not matter here, and zeros are quick to make on every backend.
Z = {"kernel_initializer": "zeros"}
DZ = {"depthwise_initializer": "zeros"}
SZ = {**DZ, "pointwise_initializer": "zeros"}
EZ = {"embeddings_initializer": "zeros"}
RZ = {**Z, "recurrent_initializer": "zeros"}


class Own(layers.Layer):
    """A layer that nobody has heard of, with a weight of each sort."""

    def build(self, input_shape):
        def add(name, shape, **kwargs):
            self.add_weight(name=name, shape=shape, initializer="zeros", **kwargs)

        add("mixer", (4, 4))
        add("fourth_order", (2, 2, 2, 2))
        add("scale", ())
        add("vector", (4,))
        add("memory", (4, 4), trainable=False)
        add("counts", (4, 4), dtype="int32", trainable=False)
        add("seen", (4, 4), dtype="bool", trainable=False)
        add("gamma", (4, 4))
        add("relative_position_bias", (4, 4))
        add("attention_bias", (4, 4))
        add("pos_embed", (1, 4, 4))
        add("cls_token", (1, 1, 4))
        add("composition", (4, 4))
        self.built = True


class RotaryEmbedding(layers.Layer):
    """An embedding by its own name only."""

    def build(self, input_shape):
        self.add_weight(name="angles", shape=(4, 4), initializer="zeros")
        self.built = True


def quantized() -> keras.Layer:
    layer = layers.Dense(3, **Z)
    layer.build((None, 4))
    layer.quantize("int8")
    return layer


def with_lora() -> keras.Layer:
    layer = layers.Dense(3, **Z)
    layer.build((None, 4))
    layer.enable_lora(2)
    return layer


# What is found: the end of the path, and the reason to leave it (none: pruned).
TABLE = {
    "Dense": (lambda: layers.Dense(3, **Z), (4,), ["kernel"]),
    "Conv1D": (lambda: layers.Conv1D(3, 2, **Z), (8, 4), ["kernel"]),
    "Conv2D": (lambda: layers.Conv2D(3, 2, **Z), (8, 8, 4), ["kernel"]),
    "Conv3D": (lambda: layers.Conv3D(3, 2, **Z), (4, 4, 4, 2), ["kernel"]),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(3, 2, **Z), (8, 4), ["kernel"]),
    "Conv2DTranspose": (
        lambda: layers.Conv2DTranspose(3, 2, **Z),
        (8, 8, 4),
        ["kernel"],
    ),
    "Conv3DTranspose": (
        lambda: layers.Conv3DTranspose(3, 2, **Z),
        (4, 4, 4, 2),
        ["kernel"],
    ),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(3, 2, **SZ),
        (8, 4),
        ["pointwise_kernel", f"depthwise_kernel: {DEPTHWISE}"],
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(3, 2, **SZ),
        (8, 8, 4),
        ["pointwise_kernel", f"depthwise_kernel: {DEPTHWISE}"],
    ),
    "DepthwiseConv1D": (
        lambda: layers.DepthwiseConv1D(2, **DZ),
        (8, 4),
        [f"kernel: {DEPTHWISE}"],
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(2, **DZ),
        (8, 8, 4),
        [f"kernel: {DEPTHWISE}"],
    ),
    "Embedding": (
        lambda: layers.Embedding(9, 4, **EZ),
        (8,),
        [f"embeddings: {TABLE_OF}"],
    ),
    "an embedding of one's own": (RotaryEmbedding, (4,), [f"angles: {TABLE_OF}"]),
    "EinsumDense": (
        lambda: layers.EinsumDense("abc,cde->abde", (8, 2, 3), bias_axes="de", **Z),
        (8, 4),
        ["kernel", f"bias: {BIAS}"],
    ),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3, **Z),
        None,
        [
            *["attention_output/kernel", "key/kernel", "query/kernel", "value/kernel"],
            *[f"{name}/bias: {BIAS}" for name in ("key", "query", "value")],
        ],
    ),
    "SimpleRNN": (
        lambda: layers.SimpleRNN(3, **RZ),
        (8, 4),
        ["simple_rnn_cell/kernel", "simple_rnn_cell/recurrent_kernel"],
    ),
    "LSTM": (
        lambda: layers.LSTM(3, **RZ),
        (8, 4),
        ["lstm_cell/kernel", "lstm_cell/recurrent_kernel"],
    ),
    "GRU": (  # its bias has two rows
        lambda: layers.GRU(3, **RZ),
        (8, 4),
        ["gru_cell/kernel", "gru_cell/recurrent_kernel", f"gru_cell/bias: {BIAS}"],
    ),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(3, **RZ)),
        (8, 4),
        ["lstm_cell/kernel", "lstm_cell/recurrent_kernel"] * 2,
    ),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Dense(3, **Z)),
        (8, 4),
        ["dense/kernel"],
    ),
    "BatchNormalization": (layers.BatchNormalization, (4,), []),
    "LayerNormalization": (
        lambda: layers.LayerNormalization(axis=(1, 2)),
        (8, 4),
        [f"beta: {NORM}", f"gamma: {NORM}"],
    ),
    "PReLU": (layers.PReLU, (8, 4), ["alpha: activation parameter"]),
    "SpectralNormalization": (
        lambda: layers.SpectralNormalization(layers.Dense(3, **Z)),
        (4,),
        [f"dense/kernel: {SPECTRAL}", f"vector_u: {FROZEN}"],
    ),
    "frozen": (
        lambda: layers.Dense(3, trainable=False, **Z),
        (4,),
        [f"kernel: {FROZEN}"],
    ),
    "quantized": (quantized, (4,), [f"kernel: {QUANTIZED}"]),
    "LoRA": (
        with_lora,
        (4,),
        [f"kernel: {LORA}", f"lora_kernel_a: {LORA}", f"lora_kernel_b: {LORA}"],
    ),
    "a layer of one's own": (
        lambda: Own(name="own"),
        (4,),
        [
            "mixer",
            "fourth_order",
            "composition",
            f"memory: {FROZEN}",
            f"counts: {FROZEN}",
            f"gamma: {NORM}",
            f"relative_position_bias: {BIAS}",
            f"attention_bias: {BIAS}",
            f"pos_embed: {TABLE_OF}",
            f"cls_token: {TABLE_OF}",
        ],
    ),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("case", TABLE)
def test_what_is_pruned(case):
    """Every weight of rank two or more is found once; what is left has its reason."""
    make, inputs, expected = TABLE[case]
    layer = make()
    if inputs is None:
        layer.build((None, 8, 4), (None, 8, 4))
    elif not layer.built:
        layer.build((None, *inputs))
    kernels = find_kernels(layer)
    found = []
    for kernel in kernels:
        row = why_not(kernel)
        found.append(f"{kernel.path}{f': {row.reason}' if row else ''}")
    assert len(found) == len(expected)
    for end in expected:
        hits = [item for item in found if item == end or item.endswith(f"/{end}")]
        assert hits, (end, found)
        found.remove(hits[0])
    ranks = [len(v.shape) for v in layer.variables if v.dtype != "bool"]
    assert len(kernels) == sum(rank >= 2 for rank in ranks)


def dense(name: str, **kwargs) -> keras.Layer:
    return layers.Dense(4, name=name, **Z, **kwargs)


@pytest.fixture
def model() -> keras.Model:
    """A model with something of each sort, and a block inside it."""
    block = keras.Sequential(
        [keras.Input((6, 4)), dense("mix"), layers.LayerNormalization(axis=(1, 2))],
        name="block",
    )
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Embedding(9, 4, name="table", **EZ),
            dense("stem"),
            block,
            layers.GRU(4, name="gru", **RZ),
            dense("still", trainable=False),
            dense("head"),
        ],
        name="net",
    )


KERNELS = [
    "net/stem/kernel",
    "block/mix/kernel",
    "net/gru/gru_cell/kernel",
    "net/gru/gru_cell/recurrent_kernel",
    "net/head/kernel",
]


def chosen(model, **filters) -> list[str]:
    return sorted(kernel.path for kernel in choose_kernels(model, **filters).kernels)


def test_default(model):
    """Kernels are pruned, the rest is reported; together they are all there is."""
    selection = choose_kernels(model)
    assert sorted(k.path for k in selection.kernels) == sorted(KERNELS)
    reasons = {kernel.path: reason for kernel, reason in selection.skipped}
    assert reasons == {
        "net/table/embeddings": TABLE_OF,
        "block/layer_normalization/gamma": NORM,
        "block/layer_normalization/beta": NORM,
        "net/gru/gru_cell/bias": BIAS,
        "net/still/kernel": FROZEN,
    }
    both = [*selection.kernels, *(kernel for kernel, _ in selection.skipped)]
    assert {id(k.variable) for k in both} == {
        id(k.variable) for k in find_kernels(model)
    }


def test_kernel_knows_its_variable(model):
    (stem,) = choose_kernels(model, only="stem").kernels
    layer = model.get_layer("stem")
    assert stem.variable is layer.kernel
    assert stem.layer is layer
    assert stem.shape == (4, 4)
    assert stem.size == 16


# -- filters -------------------------------------------------------------------

RNN = [path for path in KERNELS if "gru" in path]
REST = [path for path in KERNELS if path not in RNN]

FILTERS = {
    "regular expression": ("gru", RNN),
    "anchored": ("^net/(stem|head)/", ["net/stem/kernel", "net/head/kernel"]),
    "exact path": ("net/head/kernel", ["net/head/kernel"]),
    "layer name": ("stem", ["net/stem/kernel"]),
    "list": (["stem", "^block/mix"], ["net/stem/kernel", "block/mix/kernel"]),
    "generator": ((name for name in ("stem", "head")), None),
    "overlapping list": (["stem", "stem/kernel", "net/stem"], ["net/stem/kernel"]),
    "layer": (lambda m: m.get_layer("head"), ["net/head/kernel"]),
    "outer layer": (lambda m: m.get_layer("gru"), RNN),
    "inner model": (lambda m: m.get_layer("block"), ["block/mix/kernel"]),
    "variable": (lambda m: m.get_layer("stem").kernel, ["net/stem/kernel"]),
    "mixed list": (
        lambda m: ["head", m.get_layer("stem"), m.get_layer("gru").cell.kernel],
        ["net/stem/kernel", "net/gru/gru_cell/kernel", "net/head/kernel"],
    ),
    "function": (
        lambda m: lambda kernel: kernel.variable.name.startswith("recurrent"),
        ["net/gru/gru_cell/recurrent_kernel"],
    ),
    "function of the size": (lambda m: lambda kernel: kernel.size > 40, RNN),
}


def resolve(case, model):
    item, expected = FILTERS[case]
    if case == "generator":
        return (name for name in ("stem", "head")), ["net/stem/kernel", KERNELS[-1]]
    return (item(model) if callable(item) else item), expected


@pytest.mark.parametrize("case", FILTERS)
def test_only(model, case):
    """`only` prunes what it matches and nothing else, and says so of the rest."""
    item, expected = resolve(case, model)
    selection = choose_kernels(model, only=item)
    assert sorted(k.path for k in selection.kernels) == sorted(expected)
    reasons = {kernel.path: reason for kernel, reason in selection.skipped}
    for path in set(KERNELS) - set(expected):
        assert reasons[path] == "filtered out by only="


@pytest.mark.parametrize("case", FILTERS)
def test_skip(model, case):
    """`skip` leaves what it matches, in the same forms."""
    item, expected = resolve(case, model)
    selection = choose_kernels(model, skip=item)
    left = [path for path in KERNELS if path not in expected]
    assert sorted(k.path for k in selection.kernels) == sorted(left)
    reasons = {kernel.path: reason for kernel, reason in selection.skipped}
    for path in expected:
        assert reasons[path] == "filtered out by skip="


def test_skip_wins_over_only(model):
    assert chosen(model, only=["stem", "head"], skip="head") == ["net/stem/kernel"]


# -- naming what the default leaves --------------------------------------------


@pytest.mark.parametrize(
    "name", ["net/table/embeddings", "net/gru/gru_cell/bias", "table"]
)
def test_naming_a_skipped_one_prunes_it(model, name):
    """A table or a bias, named exactly, is pruned like a kernel."""
    (kernel,) = choose_kernels(model, only=name).kernels
    assert why_not(kernel) is not None


@pytest.mark.parametrize(
    "get",
    [
        lambda m: m.get_layer("table"),
        lambda m: m.get_layer("table").embeddings,
        lambda m: ["head", "net/table/embeddings"],
        lambda m: ["emb", "table"],
        lambda m: ["table", "emb"],
    ],
)
def test_naming_by_object_or_in_a_list(model, get):
    assert "net/table/embeddings" in chosen(model, only=get(model))


@pytest.mark.parametrize(
    "item",
    [
        "tab",
        "embeddings$",
        lambda kernel: kernel.layer.name == "table",
        ["net/tab", "head"],
    ],
)
def test_a_pattern_does_not_name(model, item):
    """What a pattern happens to hit keeps its default, and its reason."""
    filters = item if isinstance(item, list) else [item, "head"]
    selection = choose_kernels(model, only=filters)
    assert [kernel.path for kernel in selection.kernels] == ["net/head/kernel"]
    reasons = {kernel.path: reason for kernel, reason in selection.skipped}
    assert reasons["net/table/embeddings"] == TABLE_OF


def spectral() -> keras.Layer:
    layer = layers.SpectralNormalization(dense("inner"))
    layer.build((None, 4))
    return layer


def still() -> keras.Layer:
    layer = dense("inner", trainable=False)
    layer.build((None, 4))
    return layer


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [(quantized, QUANTIZED), (with_lora, LORA), (still, FROZEN), (spectral, SPECTRAL)],
)
def test_naming_what_can_not_be_pruned_raises(make, reason):
    """By layer, path or variable: the error gives the path and the reason."""
    layer = make()
    kernel = next(k for k in find_kernels(layer) if "kernel" in k.path)
    for item in (kernel.path, kernel.variable, [kernel.layer]):
        with pytest.raises(ValueError, match="which cannot be pruned: ") as caught:
            choose_kernels(layer, only=item)
        assert str(caught.value).startswith(f"only= names {kernel.path!r}")
        assert reason in str(caught.value)


class Holder(keras.Model):
    """Keeps a second hold on the kernel of its layer, as wrappers do."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Conv2DTranspose(3, 2, **Z)

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.kernel = self.inner.kernel
        self.built = True

    def call(self, inputs):
        return self.inner(inputs)


@pytest.mark.parametrize("kind", ["wrapper", "model"])
def test_a_kernel_belongs_to_the_layer_that_made_it(kind):
    """Who else holds the variable is not its owner: the matmul view depends on it."""
    if kind == "model":
        outer = Holder()
        outer.build((None, 8, 8, 4))
        inner = outer.inner
    else:
        inner = layers.Conv2DTranspose(3, 2, **Z)
        outer = layers.SpectralNormalization(inner)
        outer.build((None, 8, 8, 4))
    (kernel,) = (k for k in find_kernels(outer) if k.variable is inner.kernel)
    assert kernel.layer is inner
    assert kernel.extent(kernel.view.inputs) == 4


def test_a_tied_kernel_is_found_once():
    """Two layers side by side that hold one variable prune it once."""
    first, second = dense("first"), layers.Layer(name="second")
    first.build((None, 4))
    second.kernel = first.kernel
    second.built = True
    model = keras.Sequential([first, second])
    (kernel,) = find_kernels(model)
    assert kernel.variable is first.kernel
    assert kernel.path == first.kernel.path
    assert kernel.layer is first


# -- filters that cannot be met -----------------------------------------------


@pytest.mark.parametrize("argument", ["only", "skip"])
@pytest.mark.parametrize(
    ("item", "suggestion"),
    [
        ("net/stm/kernel", "net/stem/kernel"),
        ("hed", None),
        (["stem", "bloc/mix/kernel"], "block/mix/kernel"),
        (lambda kernel: False, None),
    ],
)
def test_a_filter_that_matches_nothing(model, argument, item, suggestion):
    """The error repeats the filter and names paths that exist, near ones first."""
    with pytest.raises(ValueError, match="matches none of the 10 weight") as caught:
        choose_kernels(model, **{argument: item})
    message = str(caught.value)
    culprit = item[1] if isinstance(item, list) else item
    assert message.startswith(f"{argument}={culprit!r}")
    expected = message[message.index("[") + 1 : message.rindex("]")]
    if suggestion:
        assert expected.startswith(repr(suggestion))
    paths = [kernel.path for kernel in find_kernels(model)]
    assert sum(repr(path) in expected for path in paths) in (1, 2, 3)


def test_a_foreign_variable_or_layer_matches_nothing(model):
    other = dense("stem")
    other.build((None, 4))
    for item in (other, other.kernel, model.get_layer("stem").bias):
        with pytest.raises(ValueError, match="matches none of the 10 weight"):
            choose_kernels(model, only=item)


def test_a_class_is_no_filter(model):
    class Filter:
        def within(self, model):
            return lambda kernel: True

    with pytest.raises(TypeError, match=r"skip= is the class Filter.*skip=Filter\(\)"):
        choose_kernels(model, skip=Filter)
    with pytest.raises(TypeError, match=r"isinstance\(kernel\.layer, Dense\)"):
        choose_kernels(model, only=[keras.layers.Dense])


@pytest.mark.parametrize("item", [5, [5], ["stem", None]])
def test_a_filter_of_the_wrong_type(model, item):
    with pytest.raises(TypeError, match="A filter is a regular expression"):
        choose_kernels(model, only=item)


@pytest.mark.parametrize("filters", [{"only": []}, {"skip": ".*"}, {"only": "still/"}])
def test_nothing_left(model, filters):
    """The error lists what the model has and why each is left."""
    with pytest.raises(ValueError, match=r"^Nothing to prune in .*'net'") as e:
        choose_kernels(model, **filters)
    for kernel in find_kernels(model):
        assert f"{kernel.path} {kernel.shape}: " in str(e.value)


def test_a_model_without_kernels():
    model = keras.Sequential([keras.Input((8,)), layers.ReLU()])
    with pytest.raises(ValueError, match=r"Nothing to prune.*rank two or more"):
        choose_kernels(model)


def test_held_kernels_are_not_up_for_choice(model):
    """What is masked already is neither chosen nor skipped, and may be all there is."""
    held = choose_kernels(model, only=["stem", "gru"]).kernels
    selection = choose_kernels(model, held=held)
    seen = [*selection.kernels, *(kernel for kernel, _ in selection.skipped)]
    assert not {id(k.variable) for k in held} & {id(k.variable) for k in seen}
    everything = choose_kernels(model).kernels
    assert choose_kernels(model, held=everything).kernels == ()


# -- paths ---------------------------------------------------------------------


class Twins(keras.Model):
    """Two layers of one name, and a third that is shared."""

    def __init__(self):
        super().__init__()
        self.twins = [dense("same"), dense("same")]
        self.again = self.twins[0]

    def build(self, input_shape):
        for twin in self.twins:
            twin.build((None, 4))
        self.built = True

    def call(self, inputs):
        return self.again(self.twins[1](self.twins[0](inputs)))


def test_paths_are_unique():
    """Twins are told apart, in a fixed order, and a shared layer counts once."""
    model = Twins()
    model.build((None, 4))
    kernels = find_kernels(model)
    variables = [twin.kernel for twin in model.twins]
    assert len({v.path for v in variables}) == 1, "the case that this is about"
    assert len({id(k.variable) for k in kernels}) == len(kernels) == 2
    first, second = (kernel.path for kernel in kernels)
    assert second == f"{first}#2"
    assert [k.path for k in find_kernels(model)] == [first, second]


def test_twins_can_be_named():
    model = Twins()
    model.build((None, 4))
    first, second = find_kernels(model)
    assert chosen(model, only=first.path) == [first.path, second.path]
    assert chosen(model, only=second.path) == [second.path]
    assert chosen(model, only=first.variable) == [first.path]
    assert chosen(model, skip=second.layer) == [first.path]


# -- the table of exclusions ---------------------------------------------------


@pytest.fixture
def exclusions():
    """The table, to be changed at will."""
    rows = [*kt.prunable.EXCLUSIONS]
    yield kt.prunable.EXCLUSIONS
    kt.prunable.EXCLUSIONS[:] = rows


@pytest.mark.parametrize("on_request", [True, False])
def test_extending_the_exclusions(model, exclusions, on_request):
    """A row of one's own is obeyed and reported like the built-in ones."""
    row = Exclusion("too small", lambda kernel: kernel.size < 40, on_request)
    exclusions.append(row)
    selection = choose_kernels(model)
    assert sorted(k.path for k in selection.kernels) == sorted(RNN)
    reasons = [reason for _, reason in selection.skipped]
    assert reasons.count("too small") == 3
    if on_request:
        assert chosen(model, only="stem") == ["net/stem/kernel"]
    else:
        with pytest.raises(ValueError, match="cannot be pruned: too small"):
            choose_kernels(model, only="stem")


def test_first_reason_wins(model, exclusions):
    exclusions.insert(0, Exclusion("mine", lambda kernel: "still" in kernel.path))
    reasons = {k.path: reason for k, reason in choose_kernels(model).skipped}
    assert reasons["net/still/kernel"] == "mine"


def test_a_row_taken_out(model, exclusions):
    exclusions[:] = [row for row in exclusions if row.reason != TABLE_OF]
    assert "net/table/embeddings" in chosen(model)


@pytest.mark.backend_independent(False)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_any_float_is_pruned(dtype):
    """Half precision is floating point too."""
    layer = dense("any", dtype=dtype)
    layer.build((None, 4))
    (kernel,) = choose_kernels(layer).kernels
    assert kernel.variable.dtype == dtype
