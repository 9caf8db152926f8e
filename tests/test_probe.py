"""Which nodes run in a sparse kernel, in each place that counts them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import pytest
from exported import exported_cnn
from keras import layers
from places import available

import keras_tickets as kt
from keras_tickets.convert import tflite_encoding
from keras_tickets.mobile import sparse_kernels
from keras_tickets.runtime.target import VARIABLE
from keras_tickets.tflite.file import TfliteFile

pytestmark = pytest.mark.backend_independent

PLACES = ("arm64", "wasm")

# Structure -> how many pixels and outputs each place's kernel computes together.
TILES = {
    "arm64": {"unstructured": "32x1", "block_2": "32x2", "block_4": "32x4"},
    "wasm": {"unstructured": "32x1", "block_2": "8x2", "block_4": "8x4"},
}


def pointwise() -> keras.Model:
    """The least that XNNPACK runs sparse: a strided stem, 1x1 convolutions, pooling."""
    image = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(1)(image)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    x = layers.Conv2D(96, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5)(x), name="pointwise")


def mobilenet(stock: bool = False) -> keras.Model:
    """Strides and an addition; the padding that XNNPACK takes, or that of MobileNet."""

    def strided(layer: Callable[..., layers.Layer], x: keras.KerasTensor):
        if stock:
            return layer(strides=2, padding="same")(x)
        return layer(strides=2)(layers.ZeroPadding2D(1)(x))

    image = keras.Input((32, 32, 3))
    x = strided(functools.partial(layers.Conv2D, 16, 3), image)
    x = layers.Conv2D(48, 1, activation="relu6")(layers.ReLU(6)(x))
    x = layers.ReLU(6)(strided(functools.partial(layers.DepthwiseConv2D, 3), x))
    x = first = layers.Conv2D(64, 1)(x)
    x = layers.Conv2D(96, 1, activation="relu6")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    x = layers.Add()([first, layers.Conv2D(64, 1)(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5)(x), name="mobilenet")


def dense() -> keras.Model:
    vector = keras.Input((64,))
    x = layers.Dense(96, activation="relu")(vector)
    x = layers.Dense(64, activation="relu")(x)
    return keras.Model(vector, layers.Dense(16)(x), name="dense")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, how it is pruned and stored, and the outputs of nodes that run sparse.

    The tolerance is how far the outputs of the file may be from Keras.
    """

    build: Callable[[], keras.Model]
    outputs: tuple[int, ...]
    structure: str = "unstructured"
    precision: str = "float32"
    sparsity: float = 0.9
    stored: str = "sparse"
    tolerance: float = 1e-6

    def __str__(self) -> str:
        name = getattr(self.build, "__name__", "stock")
        percent = f"{self.sparsity:.0%}"
        return f"{name}-{self.structure}-{self.precision}-{percent}-{self.stored}"

    def kernel(self, place: str) -> str:
        if self.build is dense:
            kind = "f32" if self.precision == "float32" else self.precision
            return f"{kind} {self.structure.removeprefix('block_')}"
        return f"f32 {TILES[place][self.structure]}"


CASES = [
    Case(pointwise, (64, 96)),
    Case(pointwise, (64, 96), precision="float16", tolerance=2e-3),
    Case(pointwise, (64, 96), structure="block_2"),
    Case(pointwise, (64, 96), structure="block_4"),
    Case(mobilenet, (48, 64, 96, 64)),
    # XNNPACK takes its sparse kernels from two thirds of zeros.
    Case(mobilenet, (48, 64, 96, 64), sparsity=0.7),
    Case(mobilenet, (), sparsity=0.6),
    Case(mobilenet, (), stored="dense"),
    Case(functools.partial(mobilenet, stock=True), ()),
    Case(dense, (96, 64, 16), structure="block_1x4"),
    Case(dense, (96, 64, 16), "block_1x16", "int8", tolerance=5e-2),
    Case(dense, (96, 64, 16), "block_1x16", "int8-dynamic", tolerance=5e-2),
    Case(dense, (), structure="block_1x4", stored="dense"),
    Case(dense, ()),
]
# One of each kernel, and a network that XNNPACK takes dense: a run takes seconds there.
ON_ARM64 = [
    case
    for case in CASES
    if (case.build is pointwise and case.precision == "float32")
    or (case.build is mobilenet and case.sparsity == 0.6)
    or (case.build is dense and case.outputs and case.precision != "int8-dynamic")
]


@functools.cache
def exported(case: Case):
    """A file's content, inputs, and what Keras computes from them."""
    model = case.build()
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        scale = 0.5 if case.build is not mobilenet else 0.2
        variable.assign(rng.normal(size=variable.shape, scale=scale).astype("float32"))
    # The stem has three inputs: no block of four.
    skip = [layer for layer in model.layers if layer.name.startswith("conv2d")][:1]
    pruner = kt.Magnitude(case.sparsity, allocation="uniform", structure=case.structure)
    ticket = kt.wrap(model, pruner, skip=skip or None)
    ticket.draw()
    samples = rng.random((2, *model.input_shape[1:]), dtype="float32")
    more = {"representative_data": samples} if case.precision == "int8" else {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if case.precision == "int8-dynamic":
            # The export keeps these zeros; files of other tools leave them out.
            patch.setattr(
                *(tflite_encoding, "safe_encodings"),
                lambda constant, readers, _: (
                    tflite_encoding.block_encodings(constant, readers),
                    "",
                ),
            )
        path = pathlib.Path(folder, "m.tflite")
        kt.export(
            *(ticket, path),
            **{"precision": case.precision, "samples": samples, "verbose": False},
            **more,
        )
        content = path.read_bytes()
    if case.stored == "dense":
        file = TfliteFile.parse(content)
        file.densify()
        content = file.to_bytes()
    return content, samples, keras.ops.convert_to_numpy(ticket.strip()(samples))


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "case"),
    [("wasm", case) for case in CASES] + [("arm64", case) for case in ON_ARM64],
    ids=str,
)
def test_nodes_run_in_the_kernel_for_their_structure(place, case, tmp_path):
    runner = available(place, ".tflite")
    content, samples, expected = exported(case)
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    ran = kt.mobile.sparse_path(path, on=place)
    assert ran.on == place
    assert {k.name: k.outputs for k in (*ran.convolutions, *ran.dense) if k.calls} == (
        {case.kernel(place): case.outputs} if case.outputs else {}
    )
    assert ran.nodes == len(case.outputs)
    with runner.open(path) as file:
        received = np.concatenate(
            [
                file.run({file.inputs[0]: sample[None]})[file.outputs[0]]
                for sample in samples
            ]
        )
    largest = np.abs(expected).max()
    assert np.abs(received - expected).max() <= case.tolerance * largest


@pytest.mark.lab
@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_file_is_an_error(place, tmp_path):
    available(place, ".tflite")
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0][:500])
    with pytest.raises(
        RuntimeError, match=r"inputs of .* cannot be read|cannot be run"
    ):
        kt.mobile.sparse_path(path, on=place)


@pytest.mark.parametrize("place", PLACES)
def test_it_says_what_is_missing_and_how_to_get_it(place, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / "m.tflite"
    path.touch()
    with pytest.raises(RuntimeError, match=rf"'{place}' is not available here"):
        kt.mobile.sparse_path(path, on=place)
    with pytest.raises(ValueError, match=r"ends with '\.tflite'"):
        kt.mobile.sparse_path(tmp_path / "m.onnx", on=place)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("host", r"counted on 'arm64' and 'wasm' only. Received: on='host'"),
        ("mars", r"Unknown target: on='mars'"),
    ],
)
def test_places_that_do_not_count_are_told(place, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kt.mobile.sparse_path(tmp_path / "m.tflite", on=place)


@pytest.mark.parametrize(
    ("place", "title"),
    [("arm64", "Sparse kernels on emulated ARM64"), ("wasm", "in LiteRT.js")],
)
def test_the_table_lists_what_ran(place, title):
    idle = {"kernel": "f32 32x2", "outputs": [], "calls": 0}
    ran = {"kernel": "f32 32x1", "outputs": [64, 96], "calls": 2}
    path = sparse_kernels.parse(
        "m.tflite", place, {"convolution": [ran, idle], "dense": []}
    )
    assert path.nodes == 2
    assert title in str(path)
    assert "f32 32x1   2, of outputs 64, 96" in str(path)
    assert "32x2" not in str(path)
