"""Networks of every kind, small, each with inputs of the kind that it reads.

    network = NETWORKS["MobileNet"]
    model = network.build()
    model(network.inputs(16))

Images are as small as a family takes; the members of `keras.applications` are the
smallest of theirs. All weights are fresh, and all outputs logits: an untrained softmax
answers one over the number of classes, whatever went wrong before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.noise import coloured_noise
from examples import networks

CLASSES = 10
VOCABULARY = 500
WORDS = 24


@dataclasses.dataclass(frozen=True)
class Network:
    """A model and what it reads.

    Args:
        make: Builds the model.
        inputs: Returns that many rows of input.
    """

    make: Callable[[], keras.Model]
    inputs: Callable[[int], Any]

    def build(self) -> keras.Model:
        """Builds the model, with the same weights every time."""
        keras.utils.set_random_seed(0)
        return self.make()


def _noise(*shape: int) -> Callable[[int], np.ndarray]:
    return lambda number: coloured_noise(shape, number)


def _words(number: int) -> np.ndarray:
    """Texts: each prefers words of its own, so that their means differ."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(VOCABULARY, 0.02), number)
    ids = [rng.choice(VOCABULARY, WORDS, p=topic) for topic in topics]
    return np.array(ids, "int32")


def _pixels(*shape: int) -> Callable[[int], np.ndarray]:
    """Images of 0 to 255, for networks that begin by rescaling them."""
    return lambda number: np.clip(60 * coloured_noise(shape, number) + 128, 0, 255)


def _application(name: str, size: int) -> Network:
    def make() -> keras.Model:
        return getattr(keras.applications, name)(
            weights=None,
            input_shape=(size, size, 3),
            classes=CLASSES,
            classifier_activation=None,
        )

    rescales = name.startswith(("ConvNeXt", "EfficientNet", "MobileNetV3"))
    return Network(make, (_pixels if rescales else _noise)(size, size, 3))


def mlp() -> keras.Model:
    return networks.lenet_300_100((28, 28, 1), CLASSES)


@keras.saving.register_keras_serializable("keras_tickets_benchmarks")
class Positions(layers.Layer):
    """Adds a learned vector for each position."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=input_shape[1:], initializer="uniform")

    def call(self, inputs):
        return inputs + self.table


def transformer() -> keras.Model:
    ids = keras.Input((WORDS,), dtype="int32", name="ids")
    x = Positions()(layers.Embedding(VOCABULARY, 64)(ids))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 16)(y, y)
        y = layers.Dense(128, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(64)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(ids, layers.Dense(CLASSES)(x), name="transformer")


def text_gru() -> keras.Model:
    ids = keras.Input((WORDS,), dtype="int32", name="ids")
    x = layers.GRU(64)(layers.Embedding(VOCABULARY, 64)(ids))
    return keras.Model(ids, layers.Dense(CLASSES)(x), name="text_gru")


def lstm() -> keras.Model:
    series = keras.Input((32, 12), name="series")
    x = layers.LSTM(48, return_sequences=True)(series)
    x = layers.LSTM(48)(x)
    return keras.Model(series, layers.Dense(CLASSES)(x), name="lstm")


def bidirectional() -> keras.Model:
    ids = keras.Input((WORDS,), dtype="int32", name="ids")
    x = layers.Embedding(VOCABULARY, 48, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(32, return_sequences=True))(x)
    x = layers.Bidirectional(layers.GRU(32))(x)
    return keras.Model(ids, layers.Dense(CLASSES)(x), name="bidirectional")


def audio_conv1d() -> keras.Model:
    wave = keras.Input((1024, 1), name="wave")
    x = wave
    for filters in (32, 64, 64, 96):
        x = layers.Conv1D(filters, 9, strides=4, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(wave, layers.Dense(CLASSES)(x), name="audio_conv1d")


def keywords_depthwise1d() -> keras.Model:
    """A keyword spotter of separable convolutions over time."""
    features = keras.Input((49, 40), name="features")
    x = layers.Conv1D(64, 3, padding="same", activation="relu")(features)
    for _ in range(3):
        x = layers.DepthwiseConv1D(9, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv1D(64, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(features, layers.Dense(CLASSES)(x), name="keywords_depthwise1d")


def unet() -> keras.Model:
    """Down twice and up twice, with a skip at each size; a map of logits comes out."""
    image = keras.Input((32, 32, 3), name="image")
    x, skips = image, []
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    for filters, skip in zip((32, 16), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = layers.Concatenate()([x, skip])
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Conv2D(4, 1)(x), name="unet")


def multi_input() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    facts = keras.Input((12,), name="facts")
    x = layers.Conv2D(32, 3, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Concatenate()([x, layers.Dense(32, activation="relu")(facts)])
    x = layers.Dense(64, activation="relu")(x)
    return keras.Model(
        {"image": image, "facts": facts}, layers.Dense(CLASSES)(x), name="multi_input"
    )


def multi_output() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(32, 3, activation="relu")(image)
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    x = layers.Dense(64, activation="relu")(x)
    outputs = {
        "kind": layers.Dense(CLASSES, name="kind")(x),
        "box": layers.Dense(4, name="box")(x),
    }
    return keras.Model(image, outputs, name="multi_output")


def nested() -> keras.Model:
    """A Functional model in a Sequential one in a Functional one."""
    inner_image = keras.Input((8, 8, 24))
    x = layers.Conv2D(24, 3, padding="same")(inner_image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    block = keras.Model(inner_image, layers.Add()([x, inner_image]), name="block")
    body = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(24, 3, strides=2, padding="same", activation="relu"),
            block,
            layers.GlobalAveragePooling2D(),
        ],
        name="body",
    )
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Dense(64, activation="relu")(body(image))
    return keras.Model(image, layers.Dense(CLASSES)(x), name="nested")


def shared() -> keras.Model:
    """Siamese: one encoder for two images."""
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(48),
        ],
        name="encoder",
    )
    left = keras.Input((16, 16, 3), name="left")
    right = keras.Input((16, 16, 3), name="right")
    x = layers.Subtract()([encoder(left), encoder(right)])
    x = layers.Dense(48, activation="relu")(keras.ops.abs(x))
    return keras.Model([left, right], layers.Dense(CLASSES)(x), name="shared")


@keras.saving.register_keras_serializable("keras_tickets_benchmarks")
class Subclassed(keras.Model):
    """Layers in a list, a residual loop in `call`."""

    def __init__(self, width: int = 64, depth: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.depth = width, depth
        self.entry = layers.Dense(width)
        self.norms = [layers.BatchNormalization() for _ in range(depth)]
        self.blocks = [layers.Dense(width, activation="relu") for _ in range(depth)]
        self.head = layers.Dense(CLASSES)

    def build(self, input_shape):
        self.entry.build(input_shape)
        inner = (None, self.width)
        for layer in (*self.norms, *self.blocks, self.head):
            layer.build(inner)
        self.built = True

    def call(self, inputs, training=None):
        x = self.entry(inputs)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x, training=training))
        return self.head(x)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "depth": self.depth}


def subclassed() -> keras.Model:
    model = Subclassed(name="subclassed")
    model.build((None, 20))
    return model


def dynamic_length() -> keras.Model:
    series = keras.Input((None, 12), name="series")
    x = layers.Conv1D(48, 5, padding="same", activation="relu")(series)
    x = layers.LayerNormalization()(x)
    x = layers.Conv1D(48, 5, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(series, layers.Dense(CLASSES)(x), name="dynamic_length")


def conv3d() -> keras.Model:
    clip = keras.Input((8, 16, 16, 2), name="clip")
    x = layers.Conv3D(16, 3, padding="same", activation="relu")(clip)
    x = layers.Conv3D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling3D()(x)
    return keras.Model(clip, layers.Dense(CLASSES)(x), name="conv3d")


def conv_lstm() -> keras.Model:
    clip = keras.Input((5, 16, 16, 2), name="clip")
    x = layers.ConvLSTM2D(12, 3, padding="same")(clip)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(clip, layers.Dense(CLASSES)(x), name="conv_lstm")


def _pair(number: int) -> list[np.ndarray]:
    shape = (16, 16, 3)
    return [coloured_noise(shape, number, seed) for seed in (0, 1)]


def _image_and_facts(number: int) -> dict[str, np.ndarray]:
    facts = np.random.default_rng(1).normal(size=(number, 12)).astype("float32")
    return {"image": coloured_noise((16, 16, 3), number), "facts": facts}


_APPLICATIONS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "MobileNetV3Large": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}

NETWORKS: dict[str, Network] = {
    **{name: _application(name, size) for name, size in _APPLICATIONS.items()},
    "resnet20": Network(networks.resnet20, _noise(32, 32, 3)),
    "mlp": Network(mlp, _noise(28, 28, 1)),
    "transformer": Network(transformer, _words),
    "text_gru": Network(text_gru, _words),
    "lstm": Network(lstm, _noise(32, 12)),
    "bidirectional": Network(bidirectional, _words),
    "audio_conv1d": Network(audio_conv1d, _noise(1024, 1)),
    "keywords_depthwise1d": Network(keywords_depthwise1d, _noise(49, 40)),
    "unet": Network(unet, _noise(32, 32, 3)),
    "multi_input": Network(multi_input, _image_and_facts),
    "multi_output": Network(multi_output, _noise(16, 16, 3)),
    "nested": Network(nested, _noise(16, 16, 3)),
    "shared": Network(shared, _pair),
    "subclassed": Network(subclassed, _noise(20)),
    "dynamic_length": Network(dynamic_length, _noise(32, 12)),
    "conv3d": Network(conv3d, _noise(8, 16, 16, 2)),
    "conv_lstm": Network(conv_lstm, _noise(5, 16, 16, 2)),
}
