"""SynFlow on the smallest member of each family of `keras.applications`.

    python -m benchmarks.synflow_families [--rounds 100]

Fresh weights, 1000 classes, the softmax head left in place. A ticket is well if the
count is exact, R is finite and positive, and the number of whole kernels without a
weight is stated; that R > 0 says a path is left, so empty kernels have live branches
beside them.
"""

from __future__ import annotations

import argparse
import math

import keras

import keras_tickets as kt
from benchmarks.record import Record

SPARSITIES = (0.9, 0.99, 0.999)

# The smallest member by weights, and the size of its input here.
FAMILIES = {
    "ConvNeXtTiny": 64,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "NASNetMobile": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "VGG16": 64,
    "Xception": 71,
}


def build(name: str) -> keras.Model:
    """Return a family's smallest member with fresh weights."""
    keras.utils.set_random_seed(0)
    size = FAMILIES[name]
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3))


def draw(name: str, sparsity: float, rounds: int) -> dict:
    """Draw a ticket and say how it is."""
    ticket = kt.wrap(build(name), kt.SynFlow(sparsity, rounds=rounds))
    curve = ticket.draw(verbose=0)
    counted = ticket.mask_set.count()
    masks = ticket.mask_set.values()
    return {
        "weights": counted.total,
        "kept": counted.kept,
        "exact": counted.zeros == round(sparsity * counted.total),
        "log10_R_dense": curve.measure[0],
        "log10_R": curve.measure[-1],
        "alive": math.isfinite(curve.measure[-1]),
        "kernels": len(masks),
        "empty_kernels": sum(not mask.any() for mask in masks),
        "seconds": sum(curve.score_seconds) + sum(curve.select_seconds),
    }


def main() -> None:
    """Run what is not recorded yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    args = parser.parse_args()
    record = Record("synflow_families", data="none: the input is all ones")
    print("| network | weights | R | 90 % | 99 % | 99.9 % |\n|---|---|---|---|---|---|")
    for name in args.families:
        rows = [
            record.row(
                lambda name=name, s=sparsity: draw(name, s, args.rounds),
                network=name,
                size=FAMILIES[name],
                sparsity=sparsity,
                rounds=args.rounds,
            )
            for sparsity in SPARSITIES
        ]
        cells = [
            f"1e{row['log10_R']:.0f}, {row['empty_kernels']} of {row['kernels']}"
            for row in rows
        ]
        first = rows[0]
        print(
            f"| {name} | {first['weights']:,} | 1e{first['log10_R_dense']:.0f} | "
            + " | ".join(cells)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
