"""Small networks for phones: what runs sparse there, what does not, and what breaks.

    graph = GRAPHS["concatenate"]
    model = graph.build()

Each is a stem, a body and a head of a few channels, so that a run on the emulated
processor takes seconds. `SAFE` ones are known to run sparse and right: the export has
to store them without their zeros. `PLANTED` ones are known to go wrong if it did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_tickets.recipe.structures import Kinds, Structure

Tensor = Any
Piece = Callable[[Tensor], Tensor]


def conv(channels: int, activation: Any = "relu", **options: Any) -> Piece:
    """A 1x1 convolution."""
    return layers.Conv2D(channels, 1, activation=activation, **options)


def chain(*pieces: Piece) -> Piece:
    """One piece after the other."""

    def run(x: Tensor) -> Tensor:
        for piece in pieces:
            x = piece(x)
        return x

    return run


def depthwise(size: int = 3, strides: int = 1, **options: Any) -> Piece:
    """A depthwise convolution, padded on all sides."""
    pad = layers.ZeroPadding2D(size // 2)
    return chain(pad, layers.DepthwiseConv2D(size, strides=strides, **options))


def stem(channels: int = 8, strides: int = 2) -> Piece:
    """What XNNPACK enters the other layout at."""
    return chain(
        layers.ZeroPadding2D(1),
        layers.Conv2D(channels, 3, strides=strides, activation="relu"),
    )


def residual(piece: Piece, join: Callable[..., Tensor] | None = None) -> Piece:
    """A piece and a shortcut."""
    return lambda x: (join or layers.Add())([x, piece(x)])


def gate(
    squeeze: Any = "relu", activation: Any = "sigmoid", channels: int = 32
) -> Piece:
    """Squeeze and excite, in convolutions."""

    def run(x: Tensor) -> Tensor:
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = conv(16, squeeze)(y)
        return layers.Multiply()([x, conv(channels, activation)(y)])

    return run


def functions(x: Tensor) -> Tensor:
    """Functions of single numbers, one after the other."""
    y = ops.cos(ops.sqrt(ops.abs(x)))
    return ops.square(ops.sin(ops.negative(ops.log(ops.rsqrt(ops.exp(y))))))


def clamps(x: Tensor) -> Tensor:
    """Functions with bounds that no operator of TFLite has."""
    return ops.clip(layers.ReLU(max_value=3.0)(x), 0.1, 0.9)


def dense_gate(x: Tensor) -> Tensor:
    """Squeeze and excite, in dense layers."""
    y = layers.Dense(16, "relu")(layers.GlobalAveragePooling2D()(x))
    y = layers.Reshape((1, 1, 32))(layers.Dense(32, "sigmoid")(y))
    return layers.Multiply()([x, y])


def body(*middle: Piece, activation: Any = "relu") -> Piece:
    """Two 1x1 convolutions to 32 channels, and something between them."""
    return chain(depthwise(), conv(32, activation), *middle, conv(32, activation))


def pool(keepdims: bool = False) -> Piece:
    """Global average pooling."""
    return layers.GlobalAveragePooling2D(keepdims=keepdims)


def classifier(x: Tensor) -> Tensor:
    """The head that is right."""
    return layers.Dense(10)(pool()(x))


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network, and how it is pruned and exported.

    Args:
        make: What becomes of the input.
        shape: The input.
        sparsity: Of the prunable weights.
        structure: What is kept together.
        precision: Of the file.
    """

    make: Piece
    shape: tuple[int, ...] = (32, 32, 3)
    sparsity: float = 0.9
    structure: str | Structure = "unstructured"
    precision: str = "float32"

    def build(self) -> keras.Model:
        """Builds the model, with the same weights every time."""
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        image = keras.Input(self.shape, name="image")
        model = keras.Model(image, self.make(image), name="graph")
        rng = np.random.default_rng(1)
        for weight in model.weights:
            if "moving_var" in weight.name or "gamma" in weight.name:
                weight.assign(rng.uniform(0.5, 1.5, weight.shape).astype("float32"))
            elif weight.trainable or "moving_mean" in weight.name:
                scale = 0.2 if len(weight.shape) == 1 else 0.5
                weight.assign(rng.normal(0, scale, weight.shape).astype("float32"))
        return model


def net(*middle: Piece, head: Piece = classifier, activation: Any = "relu") -> Piece:
    """A network with something between its 1x1 convolutions."""
    return chain(stem(), body(*middle, activation=activation), head)


def two_heads(x: Tensor) -> list[Tensor]:
    """Classes of the image, and a map."""
    return [classifier(x), conv(12, None)(x)]


def depth_to_space(x: Tensor) -> Tensor:
    """Twelve channels become three of an image twice as large."""
    return ops.depth_to_space(x, 2)


def self_attention(x: Tensor) -> Tensor:
    """A transformer block with a head."""
    y = layers.MultiHeadAttention(4, 16)(x, x)
    x = layers.LayerNormalization()(x + y)
    y = layers.Dense(64)(layers.Dense(128, "gelu")(x))
    return layers.Dense(16)(layers.GlobalAveragePooling1D()(x + y))


def mlp(x: Tensor) -> Tensor:
    """Dense layers."""
    return layers.Dense(16)(layers.Dense(64, "relu")(layers.Dense(96, "relu")(x)))


def pointwise_dense(x: Tensor) -> Tensor:
    """Dense layers in place of 1x1 convolutions."""
    x = depthwise()(stem()(x))
    x = layers.Dense(32, "relu")(layers.Dense(64, "relu")(x))
    return classifier(x)


def bn(x: Tensor) -> Tensor:
    """A BatchNormalization that nothing in front can take in."""
    return layers.BatchNormalization()(x)


def speech(x: Tensor) -> Tensor:
    """Keyword spotting: a grey image, in 3 equal channels."""
    return net()(layers.Concatenate()([x, x, x]))


def shared(x: Tensor) -> Tensor:
    """One convolution, used twice."""
    twice = conv(32)
    return classifier(twice(twice(conv(32)(stem()(x)))))


def split_dense(x: Tensor) -> Tensor:
    """GlobalAveragePooling with kept axes, a dense layer, flat at last."""
    return layers.Flatten()(layers.Dense(10)(pool(True)(x)))


# The first convolution has three inputs, and no sparse kernel.
_TWO, _FOUR = Kinds(pointwise="block_2"), Kinds(pointwise="block_4")

SAFE: dict[str, Graph] = {
    "plain": Graph(net()),
    "rescaling that is folded": Graph(net(layers.Rescaling(0.5))),
    "odd size": Graph(net(), (33, 33, 3)),
    "wide image": Graph(net(), (32, 64, 3)),
    "batch norm folded": Graph(
        chain(
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            bn,
            layers.ReLU(),
            conv(32, None, use_bias=False),
            bn,
            layers.ReLU(6.0),
            conv(32),
            classifier,
        )
    ),
    "rescaled input": Graph(chain(layers.Rescaling(1 / 127.5, -1.0), net())),
    "depthwise 5x5": Graph(net(depthwise(5))),
    "depthwise strides": Graph(net(depthwise(3, 2))),
    "depthwise 5x5 strides": Graph(net(depthwise(5, 2))),
    "same without strides": Graph(net(layers.DepthwiseConv2D(3, padding="same"))),
    "residual": Graph(net(residual(chain(conv(48), depthwise(), conv(32, None))))),
    "two residuals": Graph(
        net(residual(conv(32)), depthwise(3, 2), residual(conv(32, None)))
    ),
    "functions": Graph(net(functions)),
    "relu6": Graph(net(activation="relu6")),
    "hard_swish": Graph(net(activation="hard_swish")),
    "swish": Graph(net(activation="swish")),
    "leaky_relu": Graph(net(activation="leaky_relu")),
    "elu": Graph(net(activation="elu")),
    "gelu": Graph(net(activation="gelu")),
    "tanh": Graph(net(activation="tanh")),
    "clamps": Graph(net(clamps)),
    "maximum of a number": Graph(net(lambda x: ops.maximum(0.1, x))),
    "dilated 1x1": Graph(net(conv(32, dilation_rate=2))),
    "float16 clamps": Graph(net(clamps), precision="float16"),
    "upsampling": Graph(net(layers.UpSampling2D(2, interpolation="bilinear"))),
    "dropout": Graph(net(layers.SpatialDropout2D(0.3))),
    "gate": Graph(net(gate())),
    "gate of tanh": Graph(net(gate(activation="tanh"))),
    "gate of relu6": Graph(net(gate(activation="relu6"))),
    "depth to space": Graph(net(conv(32), head=chain(conv(12, None), depth_to_space))),
    "pooling only": Graph(net(head=pool())),
    "softmax": Graph(net(head=chain(pool(), layers.Dense(10, "softmax")))),
    "two dense": Graph(
        net(head=chain(pool(), layers.Dense(32, "relu"), layers.Dense(10)))
    ),
    "convolution, pooling": Graph(net(head=chain(conv(10, None), pool()))),
    "pooling, convolution, pooling": Graph(
        net(head=chain(pool(True), conv(10, None), pool()))
    ),
    "shared convolution": Graph(shared),
    "grey in three channels": Graph(speech, (32, 32, 1)),
    "dense as pointwise": Graph(pointwise_dense),
    "70 %": Graph(net(), sparsity=0.70),
    "95 %": Graph(net(), sparsity=0.95),
    "float16": Graph(net(), precision="float16"),
    "float16 gate": Graph(net(gate()), precision="float16"),
    "blocks of 2": Graph(net(), structure=_TWO),
    "blocks of 4": Graph(net(), structure=_FOUR),
    "blocks of 4, float16": Graph(net(), structure=_FOUR, precision="float16"),
    "blocks of 2, gate": Graph(net(gate()), structure=_TWO),
    "mlp 1x4": Graph(mlp, (64,), structure="block_1x4"),
    "mlp 1x16 int8": Graph(mlp, (64,), structure="block_1x16", precision="int8"),
    "transformer 1x4": Graph(self_attention, (16, 64), structure="block_1x4"),
}
"""Run sparse and right: the files store their 1x1 convolutions without zeros."""


DENSE: dict[str, Graph] = {
    "50 %": Graph(net(), sparsity=0.50),
    "66 %": Graph(net(), sparsity=0.66),
    "same with strides": Graph(
        chain(layers.Conv2D(8, 3, strides=2, padding="same"), body(), classifier)
    ),
    "stem without strides": Graph(chain(stem(strides=1), body(), classifier)),
    "grey stem": Graph(net(), (32, 32, 1)),
    "flatten head": Graph(
        net(depthwise(3, 2), head=chain(layers.Flatten(), layers.Dense(10)))
    ),
    "max pooling head": Graph(
        net(head=chain(layers.GlobalMaxPooling2D(), layers.Dense(10)))
    ),
    "average pooling head": Graph(
        net(head=chain(layers.AveragePooling2D(16), layers.Flatten(), layers.Dense(10)))
    ),
    "all prelu": Graph(
        chain(
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=2),
            layers.PReLU(shared_axes=[1, 2]),
            body(),
            classifier,
        )
    ),
    "image twice": Graph(net(lambda x: layers.Add()([x, x]))),
    "subtract": Graph(net(residual(conv(32), layers.Subtract()))),
    "dense gate": Graph(net(dense_gate)),
    "hard sigmoid gate": Graph(net(gate(activation="hard_sigmoid"))),
    "resnet": Graph(
        chain(
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            residual(layers.Conv2D(16, 3, padding="same", activation="relu")),
            classifier,
        )
    ),
    "mlp": Graph(mlp, (64,)),
    "transformer": Graph(self_attention, (16, 64)),
    "int8": Graph(net(), precision="int8"),
    "int8-dynamic": Graph(net(), precision="int8-dynamic"),
    "int8-dynamic, wide": Graph(net(conv(96), conv(96)), precision="int8-dynamic"),
    "mlp int8-dynamic 1x16": Graph(
        mlp, (64,), structure="block_1x16", precision="int8-dynamic"
    ),
    "mlp float16 1x4": Graph(mlp, (64,), structure="block_1x4", precision="float16"),
    "rescaling": Graph(net(layers.Rescaling(0.5), residual(conv(32)))),
    "prelu": Graph(net(layers.PReLU(shared_axes=[1, 2]))),
    "50 %, max pooling": Graph(net(layers.MaxPooling2D(2)), sparsity=0.5),
    "nearest upsampling": Graph(net(layers.UpSampling2D(2))),
}
"""Run dense and right, whatever the file stores."""

PLANTED: dict[str, Graph] = {
    "concatenate": Graph(net(lambda x: layers.Concatenate()([x, x]))),
    "max pooling": Graph(net(layers.MaxPooling2D(2))),
    "average pooling": Graph(net(layers.AveragePooling2D(2))),
    "batch norm after add": Graph(net(residual(conv(32)), bn, layers.ReLU())),
    "strided 1x1": Graph(net(conv(32, strides=2))),
    "plain 3x3": Graph(net(layers.Conv2D(32, 3, padding="same", activation="relu"))),
    "depthwise same with strides": Graph(
        net(layers.DepthwiseConv2D(3, strides=2, padding="same"))
    ),
    "depth multiplier": Graph(net(depthwise(depth_multiplier=2))),
    "depthwise 7x7": Graph(net(depthwise(7))),
    "pooling with axes only": Graph(net(head=pool(True))),
    "pooling, convolution": Graph(net(head=chain(pool(True), conv(10, None)))),
    "pooling, convolution, flat": Graph(
        net(head=chain(pool(True), conv(10, None), layers.Flatten()))
    ),
    "pooling, dense, flat": Graph(net(head=split_dense)),
    "pooling, convolution, softmax": Graph(
        net(head=chain(pool(True), conv(10, None), layers.Softmax()))
    ),
    "class and map": Graph(net(head=two_heads)),
    "float16 concatenate": Graph(
        net(lambda x: layers.Concatenate()([x, x])), precision="float16"
    ),
    "blocks of 4, max pooling": Graph(net(layers.MaxPooling2D(2)), structure=_FOUR),
}
"""Fail or go wrong on ARM64 if they were stored without their zeros."""

GRAPHS = {**SAFE, **DENSE, **PLANTED}
