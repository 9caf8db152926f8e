"""The small networks of the demo and the benchmarks.

All end in logits: compile them with a loss that has `from_logits=True`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers


def lenet_300_100(
    input_shape: Sequence[int] = (28, 28, 1), classes: int = 10
) -> keras.Model:
    """The fully connected network of the lottery ticket papers."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(300, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(100, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(classes, kernel_initializer="he_normal", name="logits"),
        ],
        name="lenet_300_100",
    )


def lenet_300_100_norm(
    input_shape: Sequence[int] = (28, 28, 1), classes: int = 10
) -> keras.Model:
    """LeNet-300-100 with BatchNorm, for weights that are frozen as they are drawn."""
    network = keras.Sequential([keras.Input(input_shape), layers.Flatten()])
    for units in (300, 100):
        network.add(layers.Dense(units, use_bias=False, kernel_initializer="he_normal"))
        # So quick that statistics follow within the few epochs of one round of IMP.
        network.add(layers.BatchNormalization(momentum=0.9))
        network.add(layers.ReLU())
    network.add(layers.Dense(classes, kernel_initializer="he_normal", name="logits"))
    network.name = "lenet_300_100_norm"
    return network


def conv4(input_shape: Sequence[int] = (32, 32, 3), classes: int = 10) -> keras.Model:
    """Conv-4 of the lottery ticket papers: a small VGG."""
    network = keras.Sequential([keras.Input(input_shape)], name="conv4")
    for filters in (64, 128):
        for _ in range(2):
            network.add(
                layers.Conv2D(
                    filters,
                    3,
                    padding="same",
                    activation="relu",
                    kernel_initializer="he_normal",
                )
            )
        network.add(layers.MaxPooling2D())
    network.add(layers.Flatten())
    for _ in range(2):
        network.add(
            layers.Dense(256, activation="relu", kernel_initializer="he_normal")
        )
    network.add(layers.Dense(classes, kernel_initializer="he_normal", name="logits"))
    return network


def depthwise_cnn(
    input_shape: Sequence[int] = (8, 8, 1),
    classes: int = 10,
    stem: tuple[int, int] = (32, 1),
    blocks: Sequence[tuple[int, int]] = ((64, 1), (128, 2), (256, 1)),
    name: str = "depthwise_cnn",
) -> keras.Model:
    """A depthwise-separable network, the family of MobileNet.

    Nearly all weights are in the 1 x 1 convolutions, which is where phones can use
    zeros. Layers of stride 2 pad by hand, one pixel on each side: `padding="same"`
    pads an even image on one side only, and phones have no sparse path for that.

    Args:
        input_shape: Height, width, channels.
        classes: How many logits.
        stem: Filters and stride of the first convolution, 3 x 3.
        blocks: Filters and stride of each block: 3 x 3 depthwise, 1 x 1.
        name: Name of the model.
    """
    image = keras.Input(input_shape)
    filters, stride = stem
    x, padding = _padded(image, stride)
    x = layers.Conv2D(
        filters,
        3,
        stride,
        padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name="stem",
    )(x)
    x = _normalised(x, "stem")
    for index, (filters, stride) in enumerate(blocks, start=1):
        x, padding = _padded(x, stride)
        x = layers.DepthwiseConv2D(
            3,
            stride,
            padding,
            use_bias=False,
            # He's rule with the true fan-in, which is 9: "he_normal" would count
            # all input channels, though each filter sees only one of them.
            depthwise_initializer=keras.initializers.RandomNormal(
                stddev=math.sqrt(2 / 9)
            ),
            name=f"depthwise_{index}",
        )(x)
        x = _normalised(x, f"depthwise_{index}")
        x = layers.Conv2D(
            filters,
            1,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"pointwise_{index}",
        )(x)
        x = _normalised(x, f"pointwise_{index}")
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(image, logits, name=name)


def mobilenet_small(
    input_shape: Sequence[int] = (32, 32, 3), classes: int = 10
) -> keras.Model:
    """A MobileNet for 32 x 32 colour images, about 150 000 weights."""
    return depthwise_cnn(
        input_shape,
        classes,
        stem=(32, 2),
        blocks=((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
        name="mobilenet_small",
    )


def _padded(x: keras.KerasTensor, stride: int) -> tuple[keras.KerasTensor, str]:
    if stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(1)(x), "valid"


def _normalised(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    # Runs here are short: averages of the last 100 steps (Keras' default, 0.99) would
    # still remember the denser network of the beginning.
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def resnet20(
    input_shape: Sequence[int] = (32, 32, 3), classes: int = 10, width: int = 16
) -> keras.Model:
    """ResNet-20 for CIFAR-10, with projections as shortcuts where the shape changes."""
    inputs = keras.Input(input_shape)
    x = _conv_bn(inputs, width, 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage in range(3):
        filters = width * 2**stage
        for block in range(3):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage and not block else 1
            y = _conv_bn(x, filters, 3, stride, f"{name}_a")
            y = layers.ReLU(name=f"{name}_a_relu")(y)
            y = _conv_bn(y, filters, 3, 1, f"{name}_b")
            if stride > 1:
                x = _conv_bn(x, filters, 1, stride, f"{name}_shortcut")
            x = layers.Add(name=f"{name}_add")([x, y])
            x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet20")


def resnet50(
    input_shape: Sequence[int] = (224, 224, 3), classes: int = 1000
) -> keras.Model:
    """ResNet-50 v1.5, as sparsity papers use it: the 3 x 3 convolution strides."""
    inputs = keras.Input(input_shape)
    x = _conv_bn(inputs, 64, 7, 2, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        filters = 64 * 2**stage
        for block in range(blocks):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage and not block else 1
            y = _conv_bn(x, filters, 1, 1, f"{name}_a")
            y = layers.ReLU(name=f"{name}_a_relu")(y)
            y = _conv_bn(y, filters, 3, stride, f"{name}_b")
            y = layers.ReLU(name=f"{name}_b_relu")(y)
            y = _conv_bn(y, 4 * filters, 1, 1, f"{name}_c")
            if not block:
                x = _conv_bn(x, 4 * filters, 1, stride, f"{name}_shortcut")
            x = layers.Add(name=f"{name}_add")([x, y])
            x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet50")


def _conv_bn(
    x: keras.KerasTensor, filters: int, size: int, stride: int, name: str
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        size,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)
