"""A tiny model around every layer class that Keras exports, with inputs for it.

The classes come from Keras' own listing: one that a new release brings has no row here,
and `make` says so.
"""

from __future__ import annotations

import importlib.util
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

BATCH = 2
RNG = np.random.default_rng(0)
BACKEND = keras.backend.backend()


def classes() -> dict[str, type[keras.Layer]]:
    """Returns the layer classes of `keras.layers`, each once, by its own name."""
    listed = (getattr(layers, name) for name in dir(layers))
    found = [x for x in listed if inspect.isclass(x) and issubclass(x, keras.Layer)]
    return {cls.__name__: cls for cls in sorted(found, key=lambda cls: cls.__name__)}


def numbers(*shape: int) -> np.ndarray:
    """Returns numbers between -1 and 1."""
    return RNG.uniform(-1, 1, (BATCH, *shape)).astype("float32")


def padded(*shape: int) -> np.ndarray:
    """Returns numbers, and steps of zeros behind."""
    return numbers(*shape) * (np.arange(shape[0]) < 2)[:, None].astype("float32")


def pixels(*shape: int) -> np.ndarray:
    """Returns values of pixels."""
    return RNG.uniform(0, 255, (BATCH, *shape)).astype("float32")


def ids(*shape: int) -> np.ndarray:
    """Returns small whole numbers."""
    return RNG.integers(0, 8, (BATCH, *shape)).astype("int64")


def words(*shape: int) -> np.ndarray:
    """Returns words."""
    return RNG.choice(["red", "green", "blue", "?"], (BATCH, *shape))


@dataclass(frozen=True)
class Recipe:
    """A call of a layer.

    Args:
        layer: The layer, or a function that calls it.
        inputs: What it reads.
        listed: Whether it takes them as one list.
    """

    layer: Callable[..., Any]
    inputs: list[np.ndarray]
    listed: bool = False

    def __call__(self, tensors: list[Any]) -> list[Any]:
        """Returns what the layer gives."""
        return keras.tree.flatten(self.layer(*([tensors] if self.listed else tensors)))


def _of(values: Callable[..., np.ndarray], *shape: int, **arguments: Any) -> Any:
    return lambda cls: Recipe(cls(**arguments), [values(*shape)])


def _on(layer: Callable[[Any], Any], values: Any, *shape: int) -> Any:
    return lambda cls: Recipe(layer(cls), [values(*shape)])


def _several(count: int, *shape: int, listed: bool = True, **arguments: Any) -> Any:
    return lambda cls: Recipe(
        cls(**arguments), [numbers(*shape) for _ in range(count)], listed
    )


def _adapted(data: Any, values: Any, *shape: int, **arguments: Any) -> Any:
    def recipe(cls: Any) -> Recipe:
        layer = cls(**arguments)
        layer.adapt(np.array(data))
        return Recipe(layer, [values(*shape)])

    return recipe


@keras.saving.register_keras_serializable(package="every_layer")
class Doubled(layers.Layer):
    """The least that a layer of one's own can be."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2


@keras.saving.register_keras_serializable(package="every_layer")
class Through(layers.Wrapper):
    """The least that a wrapper of one's own can be."""

    def call(self, inputs: Any) -> Any:
        return self.layer(inputs)


def _saved_model(cls: Any) -> Recipe:
    folder = tempfile.mkdtemp()
    keras.Sequential([keras.Input((4,)), layers.Dense(5)]).export(folder, verbose=False)
    return Recipe(cls(folder), [numbers(4)])


def _flax(cls: Any) -> Recipe:
    import flax.linen

    return Recipe(cls(flax.linen.Dense(5)), [numbers(4)])


def _torch(cls: Any) -> Recipe:
    import torch

    return Recipe(cls(torch.nn.Linear(4, 5), output_shape=(None, 5)), [numbers(4)])


@keras.saving.register_keras_serializable(package="every_layer")
def _double(inputs: Any) -> Any:
    return inputs * 2


ONE = (numbers, 6)
IMAGE = (pixels, 6, 6, 3)
STEPS = (numbers, 2, 3)
SERIES, PICTURE, VOLUME = (numbers, 6, 4), (numbers, 6, 6, 3), (numbers, 4, 4, 4, 2)
BY_RANK = {"1D": SERIES, "2D": PICTURE, "3D": VOLUME}
VIDEO = {
    "1D": (numbers, 2, 6, 2),
    "2D": (numbers, 2, 5, 5, 2),
    "3D": (numbers, 2, 4, 4, 4, 2),
}
CELL = _on(lambda cls: layers.RNN(cls(4)), *STEPS)
CONV = {"filters": 4, "kernel_size": 2}
FACTOR = {"factor": 0.5}

# What a family of classes needs, by the beginning of its name.
FAMILIES: dict[str, dict[str, Any]] = {
    "AdaptiveAveragePooling": {"output_size": 2},
    "AdaptiveMaxPooling": {"output_size": 2},
    "AveragePooling": {"pool_size": 2},
    "Conv": CONV,
    "Cropping": {},
    "DepthwiseConv": {"kernel_size": 2},
    "GlobalAveragePooling": {},
    "GlobalMaxPooling": {},
    "MaxPooling": {"pool_size": 2},
    "SeparableConv": CONV,
    "SpatialDropout": {"rate": 0.5},
    "UpSampling": {},
    "ZeroPadding": {},
}

RECIPES: dict[str, Callable[[Any], Recipe]] = {
    "Activation": _of(*ONE, activation="tanh"),
    "ActivityRegularization": _of(*ONE, l2=0.1),
    "Add": _several(2, 6),
    "AdditiveAttention": _several(2, 5, 4),
    "AlphaDropout": _of(*ONE, rate=0.5),
    "Attention": _several(2, 5, 4, use_scale=True),
    "AugMix": _of(*IMAGE),
    "AutoContrast": _of(*IMAGE),
    "Average": _several(2, 6),
    "BatchNormalization": _of(*ONE),
    "Bidirectional": _on(lambda cls: cls(layers.LSTM(4)), *STEPS),
    "CategoryEncoding": _of(ids, 4, num_tokens=8),
    "CenterCrop": _of(*IMAGE, height=4, width=4),
    "Concatenate": _several(2, 6),
    "ContrastLimitedAdaptiveHistogramEqualization": _of(*IMAGE),
    "ConvLSTM1D": _of(*VIDEO["1D"], **CONV),
    "ConvLSTM2D": _of(*VIDEO["2D"], **CONV),
    "ConvLSTM3D": _of(*VIDEO["3D"], **CONV),
    "CutMix": _of(*IMAGE),
    "Dense": _of(*ONE, units=4),
    "Discretization": _adapted([[-1.0], [0.0], [1.0]], *ONE, num_bins=4),
    "Dot": _several(2, 5, 4, axes=2),
    "Dropout": _of(*ONE, rate=0.5),
    "ELU": _of(*ONE),
    "EinsumDense": _of(
        *SERIES, equation="abc,cd->abd", output_shape=(6, 5), bias_axes="d"
    ),
    "Embedding": _of(ids, 4, input_dim=8, output_dim=3),
    # It gives back the very tensor that it reads, which no graph can hold.
    "Equalization": _on(lambda cls: Through(cls()), *IMAGE),
    "Flatten": _of(*SERIES),
    "FlaxLayer": _flax,
    "GRU": _of(*STEPS, units=4),
    "GRUCell": CELL,
    "GaussianDropout": _of(*ONE, rate=0.5),
    "GaussianNoise": _of(*ONE, stddev=0.5),
    "GroupNormalization": _of(*PICTURE, groups=3),
    "GroupedQueryAttention": _several(
        2, 5, 8, listed=False, head_dim=4, num_query_heads=4, num_key_value_heads=2
    ),
    "HashedCrossing": lambda cls: Recipe(cls(num_bins=8), [words(), words()], True),
    "Hashing": _of(words, 3, num_bins=8),
    "Identity": _of(*ONE),
    "InputLayer": _on(lambda cls: keras.ops.copy, *ONE),
    "IntegerLookup": _adapted([[1, 2, 3]], ids, 4),
    "JaxLayer": _of(*ONE, call_fn=_double),
    "LSTM": _of(*STEPS, units=4),
    "LSTMCell": CELL,
    "Lambda": _of(*ONE, function=_double),
    "Layer": _on(lambda cls: Doubled(), *ONE),
    "LayerNormalization": _of(*ONE),
    "LeakyReLU": _of(*ONE),
    "Masking": _on(lambda cls: lambda x: layers.GRU(4)(cls(0.0)(x)), padded, 3, 2),
    "MaxNumBoundingBoxes": _of(*IMAGE, max_number=3),
    "Maximum": _several(2, 6),
    "MelSpectrogram": _of(
        numbers, 64, fft_length=32, sequence_stride=16, num_mel_bins=8
    ),
    "Minimum": _several(2, 6),
    "MixUp": _of(*IMAGE),
    "MultiHeadAttention": _several(2, 5, 8, listed=False, num_heads=2, key_dim=4),
    "Multiply": _several(2, 6),
    "Normalization": _adapted([[3.0, 5.0, 9.0], [4.0, 9.0, 1.0]], numbers, 3),
    "PReLU": _of(*ONE),
    "Permute": _of(*SERIES, dims=(2, 1)),
    "Pipeline": _on(
        lambda cls: cls([layers.Rescaling(0.1), layers.RandomFlip()]), *IMAGE
    ),
    "RMSNormalization": _of(*ONE),
    "RNN": _on(lambda cls: cls(layers.SimpleRNNCell(4)), *STEPS),
    "RandAugment": _of(*IMAGE),
    "RandomBrightness": _of(*IMAGE, **FACTOR),
    "RandomColorDegeneration": _of(*IMAGE, **FACTOR),
    "RandomColorJitter": _of(*IMAGE, brightness_factor=0.5),
    "RandomContrast": _of(*IMAGE, **FACTOR),
    "RandomCrop": _on(
        lambda cls: lambda x: layers.GlobalAveragePooling2D()(cls(4, 4)(x)), *IMAGE
    ),
    "RandomElasticTransform": _of(*IMAGE),
    "RandomErasing": _of(*IMAGE),
    "RandomFlip": _of(*IMAGE),
    "RandomGaussianBlur": _of(*IMAGE),
    "RandomGrayscale": _of(*IMAGE),
    "RandomHue": _of(*IMAGE, **FACTOR),
    "RandomInvert": _of(*IMAGE),
    "RandomPerspective": _of(*IMAGE),
    "RandomPosterization": _of(*IMAGE, factor=4),
    "RandomRotation": _of(*IMAGE, **FACTOR),
    "RandomSaturation": _of(*IMAGE, **FACTOR),
    "RandomSharpness": _of(*IMAGE, **FACTOR),
    "RandomShear": _of(*IMAGE, x_factor=0.5),
    "RandomTranslation": _of(*IMAGE, height_factor=0.2, width_factor=0.2),
    "RandomZoom": _of(*IMAGE, height_factor=0.2),
    "ReLU": _of(*ONE),
    "RepeatVector": _of(*ONE, n=2),
    "Rescaling": _of(*ONE, scale=2.0, offset=1.0),
    "Reshape": _of(*ONE, target_shape=(2, 3)),
    "Resizing": _of(*IMAGE, height=4, width=4),
    "ReversibleEmbedding": _of(ids, 4, input_dim=8, output_dim=3),
    "STFTSpectrogram": _of(
        numbers, 64, 1, frame_length=16, frame_step=8, fft_length=16
    ),
    "SimpleRNN": _of(*STEPS, units=4),
    "SimpleRNNCell": CELL,
    "Softmax": _of(*ONE),
    "Solarization": _of(*IMAGE),
    "SpectralNormalization": _on(lambda cls: cls(layers.Dense(4)), *ONE),
    "StackedRNNCells": _on(
        lambda cls: layers.RNN(cls([layers.LSTMCell(3), layers.GRUCell(4)])), *STEPS
    ),
    "StringLookup": _adapted([["red", "blue"]], words, 3),
    "Subtract": _several(2, 6),
    "TFSMLayer": _saved_model,
    "TextVectorization": _adapted([["red blue"]], words, output_sequence_length=2),
    "TimeDistributed": _on(lambda cls: cls(layers.Dense(4)), *SERIES),
    "TorchModuleWrapper": _torch,
    "UnitNormalization": _of(*ONE),
    "Wrapper": _on(lambda cls: Through(layers.Dense(4)), *ONE),
}

# Where a class can be made at all.
ONLY = {
    "FlaxLayer": ("jax",),
    "JaxLayer": ("jax",),
    "TFSMLayer": ("tensorflow",),
    "TorchModuleWrapper": ("torch",),
    **dict.fromkeys(
        (
            "Hashing",
            "HashedCrossing",
            "IntegerLookup",
            "StringLookup",
            "TextVectorization",
        ),
        ("tensorflow",),
    ),
}


def recipe(name: str) -> Callable[[Any], Recipe] | None:
    """Returns what makes the model of a class; `None` if nothing is known of it."""
    if name in RECIPES:
        return RECIPES[name]
    family = name.removesuffix("Transpose")
    rank, family = family[-2:], family[:-2]
    if rank in BY_RANK and family in FAMILIES:
        return _of(*BY_RANK[rank], **FAMILIES[family])
    return None


def available() -> list[str]:
    """Returns the classes that can be made on this backend, with what is installed."""
    here = [name for name in classes() if BACKEND in ONLY.get(name, (BACKEND,))]
    flax = importlib.util.find_spec("flax") is not None
    return [name for name in here if flax or name != "FlaxLayer"]


def call_of(name: str) -> Recipe:
    """Returns the recipe of a class."""
    found = recipe(name)
    if found is None:
        raise LookupError(
            f"keras.layers.{name} has no recipe. Add a row to RECIPES in {__file__}."
        )
    return found(classes()[name])


def make(name: str) -> tuple[keras.Model, list[np.ndarray]]:
    """Returns a model of a layer and a head that can be pruned, with inputs."""
    keras.utils.set_random_seed(0)
    call = call_of(name)
    tensors = [_input(x) for x in call.inputs]
    outputs = [_head(x) for x in call(tensors)]
    given = tensors if len(tensors) > 1 else tensors[0]
    return keras.Model(given, outputs), call.inputs


def everything(names: list[str]) -> tuple[keras.Model, list[np.ndarray], list[str]]:
    """Returns one model of many layers, with inputs, and whose each output is."""
    keras.utils.set_random_seed(0)
    inputs: list[Any] = []
    values: list[np.ndarray] = []
    outputs: list[Any] = []
    owners: list[str] = []
    for name in names:
        call = call_of(name)
        tensors = [_input(x) for x in call.inputs]
        given = call(tensors)
        inputs, values = [*inputs, *tensors], [*values, *call.inputs]
        outputs, owners = [*outputs, *given], [*owners, *[name] * len(given)]
    return keras.Model(inputs, outputs), values, owners


def _input(x: np.ndarray) -> Any:
    return keras.Input(
        x.shape[1:], dtype="string" if x.dtype.kind == "U" else str(x.dtype)
    )


def _head(x: Any) -> Any:
    if not keras.backend.is_float_dtype(x.dtype):
        x = layers.Embedding(16, 2)(x)
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return layers.Dense(3)(x)
