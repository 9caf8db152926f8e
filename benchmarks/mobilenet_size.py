"""How small the files of a 90 % sparse MobileNet are, beside what their numbers need.

    KERAS_BACKEND=tensorflow python -m benchmarks.mobilenet_size

`keras.applications.MobileNet(alpha=1)` at 96 x 96 with its 1000 classes and random
weights: sizes hardly depend on what a network was trained for. 90 % of all prunable
weights are zero, or of all but the classifier's, which many leave dense. The BatchNorm
statistics are settled on coloured noise first; without that the outputs of an untrained
network are the same for every image, and comparing a file with Keras on those would
prove nothing. A random network amplifies rounding from layer to layer far more than a
trained one does, so the comparison allows more than an export does by default.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.noise import coloured_noise, settle
from benchmarks.record import Record

SHAPE = (96, 96, 3)
SPARSITY = 0.9
# What is left dense: nothing, or the classifier.
HEADS = {"pruned": None, "dense": "conv_preds"}
TOLERANCE = {"float32": 1e-4, "float16": 0.1, "int8-dynamic": 1.0, "int8": 1.0}
FILES = [(".tflite", precision) for precision in TOLERANCE]
FILES += [(".onnx", precision) for precision in ("float32", "float16")]
NUMBERS = ("bytes", "gzip_bytes", "reference_bytes", "dense_bytes", "sparsity")


def build() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNet(
        input_shape=SHAPE, weights=None, classifier_activation=None
    )


@functools.cache
def source(head: str | None) -> keras.Model:
    """The dense model, or a ticket of it; settled on the images."""
    model = build()
    if head is not None:
        ticket = kt.wrap(
            model, kt.Magnitude(SPARSITY, allocation="uniform"), skip=HEADS[head]
        )
        ticket.draw()
        model = ticket
    settle(model, images())
    return model


@functools.cache
def images() -> np.ndarray:
    return coloured_noise(SHAPE, 16)


def measure(suffix: str, precision: str, head: str | None) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        report = kt.export(
            source(head),
            pathlib.Path(folder, f"mobilenet{suffix}"),
            precision=precision,
            samples=images(),
            representative_data=images() if precision == "int8" else None,
            tolerance=TOLERANCE[precision],
        ).to_dict()
    return {
        **{key: report[key] for key in NUMBERS},
        "ratio_to_reference": round(report["reference_ratio"], 4),
        "gzip_to_reference": round(report["gzip_bytes"] / report["reference_bytes"], 4),
        "encodings": report["encodings"],
        "max_relative_difference": report["max_relative_difference"],
    }


def main() -> None:
    record = Record(
        "mobilenet_size", "colours under noise, made by the script: only sizes count"
    )
    for head in (None, *HEADS):
        for suffix, precision in FILES:
            row = functools.partial(measure, suffix, precision, head)
            result = record.row(row, file=suffix, precision=precision, head=head)
            print(suffix, precision, head, result, flush=True)


if __name__ == "__main__":
    main()
