"""What `prepare` makes of stock networks: what runs sparse then, and how fast.

    keras-tickets setup wasm && keras-tickets setup arm64
    KERAS_BACKEND=tensorflow python -m benchmarks.mobile_stock [--only NAME ...]
        [--size odd even inexact faster large] [--kind KIND ...] [--turns N] [--runs N]

`keras.applications` with ten classes, random weights and settled statistics: as they
are (float32 and int8), prepared, and prepared with their 1x1 convolutions pruned to the
same sparsity each. Sizes are an odd one, where all padding has an exact form (95 for
MobileNet, which pads by hand), 96 with exact rewrites alone, with the stem moved by
half a pixel, and with all strided layers moved, and 224 with the last. Every file is
compared with its model in each place. Then it and the dense stock file take turns, in
Node and on this machine; a speed-up is the median ratio of the same turn.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import tempfile
from typing import Any

import keras

import keras_tickets as kt
from benchmarks.noise import calm, coloured_noise, settle
from benchmarks.record import Record
from benchmarks.turns import in_real_time, in_turns
from benchmarks.worker import Worker
from keras_tickets._util.files import gzip_size
from keras_tickets.mobile.preparing.rewrites import Inexact

NETWORKS = {
    "MobileNet": 95,
    "MobileNetV2": 97,
    "MobileNetV3Small": 97,
    "MobileNetV3Large": 97,
    "EfficientNetB0": 97,
    "EfficientNetV2B0": 97,
    "ResNet50": 97,
}
# None is the network's odd size; `inexact` of `prepare`.
SIZES = {
    "odd": (None, False),
    "even": (96, False),
    "inexact": (96, True),
    "faster": (96, "faster"),
    "large": (224, "faster"),
}
SPARSITIES = (0.7, 0.8, 0.9, 0.95)
KINDS = ("stock", "stock int8", "prepared", *map(str, SPARSITIES))
SECONDS = 3600
# Random networks amplify rounding more than trained ones do.
TOLERANCE = 1e-4


def stock(name: str, size: int) -> keras.Model:
    """A network of `keras.applications` with settled statistics."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(
        input_shape=(size, size, 3),
        weights=None,
        classes=10,
        classifier_activation=None,
    )
    calm(model)
    settle(model, coloured_noise((size, size, 3)))
    return model


@functools.lru_cache(maxsize=1)
def stock_file(name: str, size: int) -> bytes:
    """The dense float32 file that all others of this network are compared with."""
    images = coloured_noise((size, size, 3))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "stock.tflite")
        kt.export(
            stock(name, size),
            path,
            samples=images[:4],
            tolerance=TOLERANCE,
            verbose=False,
        )
        return path.read_bytes()


def exported(
    path: pathlib.Path, name: str, size: int, inexact: Inexact, kind: str
) -> tuple[keras.Model, list[keras.Layer], kt.mobile.PreparePlan | None]:
    """Exports one network in one way; returns it, its 1x1 convolutions and its plan."""
    model, plan = stock(name, size), None
    if not kind.startswith("stock"):
        plan = kt.mobile.prepare_plan(model, inexact=inexact)
        model = kt.mobile.prepare(model, inexact=inexact, verbose=False)
    eligible = [layer for layer in model.layers if _is_pointwise(layer)]
    images = coloured_noise((size, size, 3))
    if kind in map(str, SPARSITIES):
        pruner = kt.Magnitude(float(kind), allocation="uniform")
        model = kt.wrap(model, pruner, only=eligible)
        model.draw()
        settle(model, images)
    int8 = {"precision": "int8", "representative_data": images}
    more = int8 if kind.endswith("int8") else {"tolerance": TOLERANCE}
    kt.export(model, path, samples=images[:4], verbose=False, **more)
    return model, eligible, plan


def measure(
    name: str, size: int, inexact: Inexact, kind: str, turns: int, runs: int
) -> dict[str, Any]:
    """Sizes, nodes, differences and times of one file."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, f"{which}.tflite") for which in ("stock", "file")]
        paths[0].write_bytes(stock_file(name, size))
        model, eligible, plan = exported(paths[1], name, size, inexact, kind)
        content = paths[1].read_bytes()
        images = coloured_noise((size, size, 3))
        tolerance = None if kind.endswith("int8") else TOLERANCE
        return {
            "bytes": len(content),
            "gzip_bytes": gzip_size(content),
            "rewritten": len(plan.done) if plan else 0,
            "left": len(plan.left) if plan else 0,
            "relative_change": plan.relative if plan else 0.0,
            "pointwise": len(eligible),
            "sparse_nodes": kt.mobile.sparse_path(paths[1]).nodes,
            "max_relative_difference": {
                on: kt.verify(
                    paths[1], model, samples=images[:2], on=on, tolerance=tolerance
                ).max_rel
                for on in ("host", "wasm", "arm64")
            },
            "wasm": in_turns(paths, turns, runs),
            "host": in_real_time(*paths, turns, runs),
        }


def count(name: str, size: int, inexact: Inexact, kind: str) -> dict[str, Any]:
    """The ARM64 instructions of one run of the same file: work, and no time."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file.tflite")
        exported(path, name, size, inexact, kind)
        return {"instructions": kt.mobile.instructions(path).instructions}


def tried(worker: Worker, *row: Any) -> dict[str, Any]:
    """Like `measure`, but a row that breaks is a row that failed."""
    try:
        return worker(*row)
    except RuntimeError as error:
        return {"failed": str(error)}


def _is_pointwise(layer: keras.Layer) -> bool:
    if not isinstance(layer, keras.layers.Conv2D):
        return False
    return layer.kernel_size == (1, 1) and layer.strides == (1, 1)


def main() -> None:
    """Runs what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NETWORKS, nargs="+", metavar="NAME")
    parser.add_argument("--kind", choices=KINDS, nargs="+")
    parser.add_argument("--size", choices=SIZES, nargs="+", default=[*SIZES])
    parser.add_argument("--turns", type=int, default=15, help="turns that count")
    parser.add_argument("--runs", type=int, default=25, help="runs of one turn")
    parser.add_argument("--count", action="store_true", help="instructions instead")
    arguments = parser.parse_args()
    record = Record("mobile_stock", "coloured noise, made by the script: no accuracy")
    cases = [
        (name, size or NETWORKS[name], inexact, kind)
        for name in arguments.only or NETWORKS
        for size, inexact in (SIZES[which] for which in arguments.size)
        for kind in arguments.kind or KINDS
    ]
    with Worker(measure, SECONDS) as worker:
        for name, size, inexact, kind in cases:
            if kind.startswith("stock"):
                inexact = False
            if arguments.count:
                what = {"network": name, "size": size, "inexact": inexact, "kind": kind}
                counting = functools.partial(count, name, size, inexact, kind)
                print(what, record.row(counting, counted="instructions", **what))
                continue
            row = (name, size, inexact, kind, arguments.turns, arguments.runs)
            results = record.row(
                functools.partial(tried, worker, *row),
                network=name,
                size=size,
                inexact=inexact,
                kind=kind,
                turns=arguments.turns,
                runs=arguments.runs,
            )
            print(name, size, inexact, kind, results, flush=True)


if __name__ == "__main__":
    main()
