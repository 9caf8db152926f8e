"""What zeros bring in LiteRT.js, whose sparse kernels run in WebAssembly.

    export/wasm/build
    KERAS_BACKEND=tensorflow python -m benchmarks.mobile_wasm [--turns N] [--runs N]

MobileNetV1 at 96 x 96 with ten classes, padded by hand as sparse kernels need it, with
random weights; the 1 x 1 convolutions are pruned to the same sparsity each. Every file
is compared with its model in LiteRT.js first. Then it and the dense float32 file take
turns, in alternating order, each in a Node process of its own; the first turn of each
warms up and does not count. A speed-up is the ratio of the medians; its spread is that
of neighbouring turns.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.noise import calm, coloured_noise, settle
from benchmarks.record import Record
from benchmarks.turns import in_turns
from examples.networks import depthwise_cnn
from keras_tickets.files import gzip_size

SHAPE = (96, 96, 3)
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)

# The dense float16 file is a rival of its own.
CASES = [(0.0, "float16")] + [
    (sparsity, precision)
    for precision in ("float32", "float16")
    for sparsity in (0.7, 0.8, 0.9, 0.95)
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=21, help="turns that count")
    parser.add_argument("--runs", type=int, default=25, help="runs of one turn")
    arguments = parser.parse_args()
    record = Record(
        "mobile_wasm", "colours under noise, made by the script: only times count"
    )
    for sparsity, precision in CASES:
        parameters = {
            "sparsity": sparsity,
            "precision": precision,
            "turns": arguments.turns,
            "runs": arguments.runs,
        }
        print(record.row(lambda p=parameters: measure(**p), **parameters))


def measure(sparsity: float, precision: str, turns: int, runs: int) -> dict[str, Any]:
    images = coloured_noise(SHAPE)
    dense = network(images)
    with tempfile.TemporaryDirectory() as name:
        paths = [pathlib.Path(name, "dense.tflite"), pathlib.Path(name, "file.tflite")]
        kt.export(dense, paths[0], verbose=False)
        model = pruned(sparsity, images) if sparsity else dense
        kt.export(model, paths[1], precision=precision, verbose=False)
        compared = kt.verify(paths[1], model, samples=images[:4], on="wasm")
        content = paths[1].read_bytes()
        return {
            "bytes": len(content),
            "gzip_bytes": gzip_size(content),
            "max_relative_difference": compared.max_rel,
            **in_turns(paths, turns, runs),
        }


def network(images: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = depthwise_cnn(SHAPE, 10, stem=(32, 2), blocks=BLOCKS, name="mobilenet_v1")
    calm(model)
    settle(model, images)
    return model


def pruned(sparsity: float, images: np.ndarray) -> kt.Ticket:
    pruner = kt.Magnitude(sparsity, allocation="uniform")
    ticket = kt.wrap(network(images), pruner, only="pointwise")
    ticket.draw()
    settle(ticket, images)
    return ticket


if __name__ == "__main__":
    main()
