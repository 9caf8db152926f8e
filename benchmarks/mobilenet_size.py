"""How much smaller the files of a 90 % sparse MobileNet are than the dense ones.

    KERAS_BACKEND=tensorflow python -m benchmarks.mobilenet_size

`keras.applications.MobileNet(alpha=0.5)` at 96 x 96 with 10 classes and random weights:
sizes hardly depend on what a network was trained for. The BatchNorm statistics are
settled on coloured noise first; without that the outputs of an untrained network are
the same for every image, and comparing a file with Keras on those would prove nothing.
A random network amplifies rounding from layer to layer more than a trained one does, so
the comparison allows 1e-4.
"""

from __future__ import annotations

import pathlib
import tempfile

import keras

import keras_tickets as kt
from benchmarks.noise import coloured_noise, settle
from benchmarks.record import Record

SHAPE, CLASSES = (96, 96, 3), 10


def main() -> None:
    record = Record(
        "mobilenet_size", "colours under noise, made by the script: only sizes count"
    )
    for suffix in (".tflite", ".onnx"):
        print(record.row(lambda suffix=suffix: measure(suffix), file=suffix))


def measure(suffix: str) -> dict:
    keras.utils.set_random_seed(0)
    dense = keras.applications.MobileNet(
        input_shape=SHAPE, alpha=0.5, weights=None, classes=CLASSES
    )
    ticket = kt.wrap(
        keras.models.clone_model(dense), kt.Magnitude(0.9, allocation="erk")
    )
    ticket.draw()
    images = coloured_noise(SHAPE)
    settle(dense, images)
    settle(ticket, images)
    with tempfile.TemporaryDirectory() as folder:
        export = {
            name: kt.export(
                source,
                pathlib.Path(folder, name + suffix),
                samples=images,
                tolerance=1e-4,
            )
            for name, source in (("dense", dense), ("ticket", ticket))
        }
    whole, sparse = export["dense"], export["ticket"]
    return {
        "bytes": {name: report.bytes for name, report in export.items()},
        "gzip_bytes": {name: report.gzip_bytes for name, report in export.items()},
        "ratio_bytes": round(sparse.bytes / whole.bytes, 4),
        "ratio_gzip": round(sparse.gzip_bytes / whole.gzip_bytes, 4),
        "zeros_in_file": sparse.zeros,
        "zeros_of_masks": ticket.mask_set.count().zeros,
        "max_relative_difference": sparse.max_relative_difference,
    }


if __name__ == "__main__":
    main()
