"""Programs and files for the tests of the places where files run."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
import tempfile
from typing import NoReturn

import keras
import pytest
from exported import make_sparse
from kept import kept
from keras import layers

import keras_tickets as kt
from benchmarks.unguarded import unguarded
from keras_tickets.runtime import RUNNERS, Runner
from keras_tickets.runtime.wasm import _PROGRAM

# What `runner.mjs` said of files of this package: LiteRT.js 2.5.3, Node 20.20.2.
LOADED = (
    '{"inputs":[{"name":"image","dtype":"float32","shape":[1,12,12,3]}],'
    '"outputs":[{"name":"dense","dtype":"float32","shape":[1,5]}],"version":"2.5.3",'
    '"build":"litert_wasm_internal","node":"20.20.2"}'
)
BROKEN = '{"error":"Failed to load model from buffer"}'
BAD_HEAD = (
    '{"error":"XNNPack delegate failed to reshape runtime; Node number 13 '
    "(TfLiteXNNPackDelegate) failed to prepare.; [litert_compiled_model.cc:164] Failed "
    'to allocate tensors"}'
)

_FAKE = """#!{python}
import json, sys, time
if sys.argv[1] == "--version":
    print({version!r})
    sys.exit()
{body}
"""


LABS_REQUIRED = "KERAS_TICKETS_LABS_REQUIRED"


def without_lab(reason: str) -> NoReturn:
    """Skip the test; in `make test-labs` a lab that is missing fails it."""
    if os.environ.get(LABS_REQUIRED):
        pytest.fail(f"A lab is required and missing. {reason}")
    pytest.skip(reason)


def available(name: str, suffix: str) -> Runner:
    """The runner, or the test is skipped with the reason that a user is told."""
    runner = RUNNERS[name]
    if suffix not in runner.suffixes:
        pytest.skip(f"{name} does not run {suffix}")
    if reason := runner.missing(suffix):
        without_lab(reason)
    return runner


def emulated(test):
    """Mark a test that runs on the emulated machine."""
    return pytest.mark.lab(pytest.mark.usefixtures("arm64_lab")(test))


def fake_node(folder: pathlib.Path, body: str = "", version: str = "v20.20.2") -> str:
    """A program `node` that behaves as told; returns the PATH that finds only it."""
    program = folder / "bin" / "node"
    program.parent.mkdir()
    program.write_text(_FAKE.format(python=sys.executable, version=version, body=body))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program.parent)


def fake_build(folder: pathlib.Path, version: str = _PROGRAM) -> str:
    """A folder of runners with a wasm that looks built; returns it."""
    (folder / "wasm" / "node_modules" / "@litertjs" / "core").mkdir(parents=True)
    package = json.dumps({"version": version})
    (folder / "wasm" / "package.json").write_text(package)
    return str(folder)


def network(head: str) -> keras.Model:
    """A sparse convolution network; `head` says what is wrong with it, if anything."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(image))
    x = layers.DepthwiseConv2D(3)(layers.ZeroPadding2D(1)(layers.ReLU()(x)))
    x = layers.Conv2D(64, 1)(layers.ReLU()(layers.Conv2D(64, 1)(layers.ReLU()(x))))
    if head == "keepdims":
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return make_sparse(
            keras.Model(
                image, layers.Flatten(name="logits")(layers.Conv2D(5, 1)(x)), name=head
            )
        )
    if head == "concatenate":
        x = layers.Conv2D(64, 1)(layers.Concatenate()([x, x]))
    x = layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x))
    return make_sparse(keras.Model(image, x, name=head))


def exported_network(head: str) -> tuple[keras.Model, bytes]:
    """The network and its file, with sparse tensors also where they do harm."""
    return network(head), _file_of(head)


@kept
def _file_of(head: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder, unguarded():
        path = pathlib.Path(folder, "m.tflite")
        kt.export(network(head), path, verbose=False)
        return path.read_bytes()
