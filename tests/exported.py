"""Small sparse models and their files, converted once for all tests."""

from __future__ import annotations

import functools
import pathlib
import tempfile

import keras
import numpy as np
from kept import kept
from keras import layers

import keras_tickets as kt
from keras_tickets._util.file_tensor import Array

SUFFIXES = (".tflite", ".onnx")


def inputs(shape: tuple[int, ...], rows: int = 24) -> Array:
    return np.random.default_rng(1).random((rows, *shape)).astype("float32")


def export(model, path, precision, **arguments) -> kt.ExportReport:
    """Export with data for what asks for data."""
    data = inputs(model.inputs[0].shape[1:])
    if precision == "int8":
        arguments["representative_data"] = data
    arguments = {"samples": data, "verbose": False, "overwrite": True, **arguments}
    return kt.export(model, path, precision=precision, **arguments)


def values_of(variable: keras.Variable) -> Array:
    return np.array(keras.ops.convert_to_numpy(variable.value))


def make_sparse(model: keras.Model, sparsity: float = 0.8) -> keras.Model:
    """Sets kernels, embeddings and biases at random; kernels get zeros."""
    rng = np.random.default_rng(7)
    for variable in model.trainable_variables:
        values = rng.normal(scale=0.5, size=variable.shape)
        if len(variable.shape) >= 2 and "bias" not in variable.name:
            values[rng.random(values.shape) < sparsity] = 0
        variable.assign(values.astype("float32"))
    return model


def cnn() -> keras.Model:
    """Every layer has its name: the file may have been made in another process."""
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="conv2d")(image)
    x = layers.BatchNormalization(name="batch_normalization")(x)
    x = layers.ReLU(name="re_lu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise_conv2d")(x)
    x = layers.Conv2D(64, 1, name="conv2d_1")(x)
    x = layers.GlobalAveragePooling2D(name="global_average_pooling2d")(x)
    x = layers.Dense(5, activation="softmax", name="dense")(x)
    return keras.Model(image, x, name="cnn")


def dict_model() -> keras.Model:
    """Inputs and outputs of equal shapes, whose names are not in order."""
    zeta, alpha = keras.Input((8,), name="zeta"), keras.Input((8,), name="alpha")
    ids = keras.Input((4,), name="mid", dtype="int32")
    word = layers.Flatten()(layers.Embedding(7, 6)(ids))
    x = layers.Concatenate()([layers.Dense(8)(zeta), layers.Dense(8)(alpha), word])
    outputs = {"second": layers.Dense(3)(x), "first": layers.Dense(3)(x)}
    return keras.Model({"zeta": zeta, "alpha": alpha, "mid": ids}, outputs)


def list_model() -> keras.Model:
    """More than ten outputs: sorted as words, output_10 stands before output_2."""
    left, right = keras.Input((6,), name="b"), keras.Input((6,), name="a")
    x = layers.Dense(4)(left) - layers.Dense(4)(right)
    return keras.Model([left, right], [x + i for i in range(11)])


def gru() -> keras.Model:
    ids = keras.Input((6,))
    x = layers.GRU(8)(layers.Embedding(11, 8)(ids))
    return keras.Model(ids, layers.Dense(2)(x))


def attention() -> keras.Model:
    tokens = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(tokens, tokens)
    return keras.Model(tokens, layers.Dense(2)(layers.LayerNormalization()(x)))


def half() -> keras.Model:
    image = keras.Input((10, 10, 3))
    x = layers.Conv2D(8, 3, dtype="mixed_float16")(image)
    x = layers.GlobalAveragePooling2D(dtype="mixed_float16")(x)
    return keras.Model(image, layers.Dense(5)(x))


def open_size() -> keras.Model:
    image = keras.Input((None, None, 3))
    return keras.Model(
        image, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    )


class Pair(keras.Model):
    """Subclassed and unregistered, but importable."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(6), layers.Dense(3)

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((None, 6))
        self.built = True

    def call(self, inputs):
        return self.second(keras.ops.tanh(self.first(inputs)))


def subclassed() -> keras.Model:
    model = Pair()
    model(np.zeros((2, 5), "float32"))
    return model


@functools.cache
def sparse_cnn() -> keras.Model:
    return make_sparse(cnn())


@kept
def exported_cnn(suffix: str) -> tuple[bytes, kt.ExportReport]:
    """The file of `sparse_cnn` and the report of its export."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"cnn{suffix}")
        report = kt.export(sparse_cnn(), path, verbose=False)
        return path.read_bytes(), report


def mlp(block: int) -> keras.Model:
    """Dense layers with nine tenths of their blocks of `block` inputs zero."""
    rng = np.random.default_rng(block)
    model = keras.Sequential(
        [
            keras.Input((64,), name="x"),
            layers.Dense(96, activation="relu", name="wide"),
            layers.Dense(32, name="head"),
        ],
        name="mlp",
    )
    for layer in model.layers:
        rows, columns = layer.kernel.shape
        kept_blocks = rng.random((rows // block, columns)) < 0.1
        kernel = rng.choice([-1, 1], (rows, columns)) * (0.5 + rng.random())
        layer.kernel.assign(kernel * np.repeat(kept_blocks, block, axis=0))
    return model


@kept
def exported_mlp(precision: str, block: int) -> tuple[bytes, kt.ExportReport]:
    """The file of `mlp(block)` and the report of its export."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "m.tflite")
        report = export(mlp(block), path, precision)
        return path.read_bytes(), report
