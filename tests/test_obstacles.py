"""What `prepare_plan` calls an obstacle is what keeps convolutions from running sparse.

Two rooms speak of XNNPACK: the obstacles of Keras layers, and the rules of operators.
Here they are asked about the same networks.
"""

from __future__ import annotations

import functools

import keras
import pytest
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.mobile.preparing.building import build

pytestmark = pytest.mark.backend_independent

SIZE, CHANNELS = 12, 8


def network(between) -> keras.Model:
    """A network that runs sparse, if what is between its 1x1 convolutions does."""
    image = keras.Input((2 * SIZE - 1, 2 * SIZE - 1, 3))
    x = layers.Conv2D(CHANNELS, 3, strides=2)(layers.ZeroPadding2D(1)(image))
    x = layers.Conv2D(CHANNELS, 1, name="before", activation="relu")(x)
    x = layers.Conv2D(16, 1, name="behind")(between(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(4, name="head")(x))


def gate(y):
    z = layers.GlobalAveragePooling2D(keepdims=True)(y)
    z = layers.Conv2D(CHANNELS, 1, activation="sigmoid")(z)
    return layers.Multiply()([y, z])


FUNCTIONS = [
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"),
    *("sigmoid", "hard_sigmoid", "hard_silu", "tanh", "hard_tanh"),
    *("softplus", "softsign", "softmax", "exponential", "linear"),
]
OPERATORS = [
    *("abs", "exp", "floor", "log", "negative", "round", "rsqrt"),
    *("sign", "sin", "sqrt", "square", "expm1", "reciprocal", "relu6", "silu"),
]
PAIRS = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power"]


def own(make, *arguments, **options):
    return lambda y: make(*arguments, **options)(y)


BETWEEN = {
    "nothing": lambda y: y,
    **{f"Activation {name}": own(layers.Activation, name) for name in FUNCTIONS},
    **{
        f"Conv2D with {name}": own(layers.Conv2D, CHANNELS, 1, activation=name)
        for name in ("gelu", "hard_sigmoid", "exponential", "softplus")
    },
    **{f"ops.{n}": lambda y, n=n: getattr(ops, n)(y) for n in OPERATORS},
    **{
        f"ops.{n} of images": lambda y, n=n: getattr(ops, n)(y, ops.tanh(y))
        for n in ("add", "divide", "power")
    },
    **{f"ops.{n} of a number": lambda y, n=n: getattr(ops, n)(y, 2.0) for n in PAIRS},
    **{
        kind.__name__: lambda y, kind=kind: kind()([y, ops.tanh(y)])
        for kind in (
            *(layers.Add, layers.Average, layers.Concatenate, layers.Maximum),
            *(layers.Minimum, layers.Multiply, layers.Subtract),
        )
    },
    **{
        f"{kind.__name__}": own(kind)
        for kind in (
            *(layers.BatchNormalization, layers.ELU, layers.Identity),
            *(layers.LayerNormalization, layers.LeakyReLU, layers.PReLU, layers.ReLU),
            *(layers.Softmax, layers.UnitNormalization, layers.MaxPooling2D),
            layers.UpSampling2D,
        )
    },
    "Dropout": own(layers.Dropout, 0.5),
    "AveragePooling2D": own(layers.AveragePooling2D, 2),
    "ReLU of a slope": own(layers.ReLU, negative_slope=0.1),
    "ReLU up to 6": own(layers.ReLU, 6.0),
    "ReLU up to 1": own(layers.ReLU, 1.0),
    "ReLU up to 4": own(layers.ReLU, 4.0),
    "ReLU from 1": own(layers.ReLU, threshold=1.0),
    "ReLU up to 6 of a slope": own(layers.ReLU, 6.0, negative_slope=0.1),
    "GroupNormalization": own(layers.GroupNormalization, 2),
    "norm behind a sum": lambda y: layers.BatchNormalization()(y + ops.tanh(y)),
    "Rescaling": own(layers.Rescaling, 0.5),
    "bilinear": own(layers.UpSampling2D, interpolation="bilinear"),
    "bilinear by 3": own(layers.UpSampling2D, 3, interpolation="bilinear"),
    "Resizing": own(layers.Resizing, 22, 22),
    "1x1": own(layers.Conv2D, CHANNELS, 1),
    "1x1 of stride 2": own(layers.Conv2D, CHANNELS, 1, 2),
    "1x1 of stride 3": own(layers.Conv2D, CHANNELS, 1, 3),
    "1x1 in groups": own(layers.Conv2D, CHANNELS, 1, groups=2),
    "3x3": own(layers.Conv2D, CHANNELS, 3, padding="same"),
    "Dense": own(layers.Dense, CHANNELS),
    "Dense with ReLU": own(layers.Dense, CHANNELS, activation="relu"),
    "SeparableConv2D": own(layers.SeparableConv2D, CHANNELS, 3, padding="same"),
    "SeparableConv2D of 7": own(layers.SeparableConv2D, CHANNELS, 7, padding="same"),
    "Conv2DTranspose": own(layers.Conv2DTranspose, CHANNELS, 2, 2),
    **{
        f"depthwise {options}": own(layers.DepthwiseConv2D, **options)
        for options in (
            {"kernel_size": 3, "padding": "same"},
            {"kernel_size": 5, "padding": "same"},
            {"kernel_size": 3, "strides": 2, "padding": "same"},
            {"kernel_size": 5, "strides": 2, "padding": "same"},
            {"kernel_size": 7, "padding": "same"},
            {"kernel_size": 3, "strides": 3, "padding": "same"},
            {"kernel_size": 3},
            {"kernel_size": 3, "padding": "same", "depth_multiplier": 2},
            {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
            {"kernel_size": 3, "padding": "same", "dilation_rate": 3},
            {"kernel_size": 3, "padding": "same", "activation": "gelu"},
            {"kernel_size": 3, "padding": "same", "activation": "softplus"},
        )
    },
    "padded 1x1": own(layers.ZeroPadding2D, 1),
    "padded depthwise": lambda y: layers.DepthwiseConv2D(3)(layers.ZeroPadding2D(1)(y)),
    "padded twice": lambda y: layers.DepthwiseConv2D(3, padding="same")(
        layers.ZeroPadding2D(1)(y)
    ),
    "Cropping2D": own(layers.Cropping2D, 1),
    "Permute": own(layers.Permute, (2, 1, 3)),
    "gate": gate,
    "times its mean": lambda y: layers.Multiply()(
        [y, layers.GlobalAveragePooling2D(keepdims=True)(y)]
    ),
    "ops.mean": lambda y: y * ops.mean(y, axis=(1, 2), keepdims=True),
    "mean over channels": lambda y: y * ops.mean(y, axis=-1, keepdims=True),
    "ops.clip": lambda y: ops.clip(y, 0.0, 6.0),
    "sum of three": lambda y: layers.Add()([y, ops.tanh(y), ops.sigmoid(y)]),
    "image twice": lambda y: layers.Add()([y, y]),
    "square": lambda y: layers.Multiply()([y, y]),
}

# Not called ready, and ready all the same: some numbers the converter takes into the
# convolution behind, and some make a function another one.
CAUTIOUS = [
    *("Conv2D with hard_sigmoid", "ops.clip", "ops.expm1", "ops.power of a number"),
]

# A few of each kind, for every day.
SLICE = [
    *("nothing", "Activation gelu", "ops.abs", "ops.sign", "Subtract", "Dense"),
    *("Concatenate", "ops.divide of images", "times its mean"),
]


@functools.cache
def answers(case: str) -> tuple[bool, bool, str]:
    """Whether the plan calls it ready, and whether all 1x1 convolutions run sparse."""
    model = network(BETWEEN[case])
    plan = kt.mobile.prepare_plan(model)
    told = kt.diagnose(build(plan.graph), sparsity=0.9)
    pointwise = [
        layer for layer in told.layers if layer.op == "CONV_2D" and layer.candidate
    ]
    sparse = all(layer.runs == "sparse" for layer in pointwise)
    return plan.ready, sparse, f"{[*map(str, plan.left)]} {told}"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case in SLICE else [pytest.mark.slow])
        for case in BETWEEN
    ],
)
def test_ready_is_what_runs_sparse(case):
    ready, sparse, told = answers(case)
    assert sparse == (ready or case in CAUTIOUS), told
    assert not (ready and case in CAUTIOUS), told
