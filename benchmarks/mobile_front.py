"""What a user gets: accuracy, size and speed of one network, dense and pruned.

    keras-tickets setup wasm && keras-tickets setup arm64
    KERAS_BACKEND=tensorflow python -m benchmarks.mobile_front train
    KERAS_BACKEND=tensorflow python -m benchmarks.mobile_front measure
    python -m benchmarks.mobile_front table     # of docs/phone.md, from the results

The small MobileNet of the demo on CIFAR-10: layers of stride 2 are padded by hand, so
that XNNPACK runs the 1 x 1 convolutions sparse. A dense network is trained; then it is
trained on as it is, and once for each sparsity with its 1 x 1 convolutions pruned step
by step. All have seen the same images as often. That is a short training: what counts
is the distance to the dense network. The accuracy is that of the *files*, run on the
test images. Models are kept in `build/mobile_front`; `train` goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.record import RESULTS, Record
from examples import datasets
from examples.networks import mobilenet_small
from keras_tickets import runtime

SPARSITIES = (0.7, 0.8, 0.9, 0.95)
EPOCHS, MORE, BATCH = 4, 3, 128
FOLDER = pathlib.Path("build", "mobile_front")
DENSE = "dense"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["train", "measure", "table"])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--places", nargs="+", default=["host", "wasm", "arm64"])
    arguments = parser.parse_args()
    if arguments.step == "table":
        print(table())
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    train, test, provenance = datasets.load("cifar10")
    if arguments.step == "train":
        train_all(train, test)
    else:
        measure(
            Record("mobile_front", provenance),
            train,
            test,
            arguments.places,
            arguments.turns,
        )


# -- training ----------------------------------------------------------------------


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return mobilenet_small()


def train_all(train: datasets.Split, test: datasets.Split) -> None:
    start = _once("start", lambda: fit(network(), train, test, EPOCHS))
    for name, sparsity in [(DENSE, 0.0), *((file_of(s), s) for s in SPARSITIES)]:
        _once(name, lambda s=sparsity: fit(pruned(start, s), train, test, MORE))


def pruned(start: keras.Model, sparsity: float) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = network()
    model.set_weights(start.get_weights())
    if not sparsity:
        return model
    pruner = kt.GradualMagnitude(sparsity, allocation="uniform")
    return kt.wrap(model, pruner, only="pointwise")


def fit(
    model: keras.Model, train: datasets.Split, test: datasets.Split, epochs: int
) -> keras.Model:
    steps = epochs * -(-len(train[0]) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=2)
    print(model.name, model.evaluate(*test, verbose=0), flush=True)
    return model.strip() if isinstance(model, kt.Ticket) else model


def _once(name: str, make: Any) -> keras.Model:
    path = FOLDER / f"{name}.keras"
    if not path.exists():
        make().save(path)
    return keras.models.load_model(path)


# -- files -------------------------------------------------------------------------


def measure(
    record: Record,
    train: datasets.Split,
    test: datasets.Split,
    places: list[str],
    turns: int,
) -> None:
    images = train[0][:256]
    files = dict(export_all(images))
    accuracy = {
        name: record.row(lambda p=path: {"accuracy": accuracy_of(p, test)}, file=name)[
            "accuracy"
        ]
        for name, path in files.items()
    }
    for name, path in files.items():
        record.row(lambda p=path: counted(p, images), instructions=name)
    table = record.row(
        lambda: kt.mobile.compare(
            files, on=places, accuracy=accuracy, turns=turns, runs=50, warmup=200
        ).to_dict(),
        places=places,
        turns=turns,
    )
    print(table)


def export_all(images: np.ndarray) -> Iterator[tuple[str, pathlib.Path]]:
    """The files by name; the first is what the others are compared with."""
    for precision in ("float32", "float16", "int8"):
        yield from _export(DENSE, precision, images)
    for sparsity in SPARSITIES:
        for precision in ("float32", "float16"):
            yield from _export(file_of(sparsity), precision, images)


def _export(
    name: str, precision: str, images: np.ndarray
) -> Iterator[tuple[str, pathlib.Path]]:
    path = FOLDER / f"{name}_{precision}.tflite"
    if not path.exists():
        kt.export(
            keras.models.load_model(FOLDER / f"{name}.keras"),
            path,
            precision=precision,
            samples=images[:16],
            representative_data=images if precision == "int8" else None,
        )
    yield f"{name}, {precision}", path


def counted(path: pathlib.Path, images: np.ndarray) -> dict[str, Any]:
    """What ran sparse on ARM64, and how many instructions that took."""
    model = keras.models.load_model(FOLDER / f"{path.stem.rsplit('_', 1)[0]}.keras")
    compared = {
        place: kt.verify(path, model, samples=images[:4], on=place).max_rel
        for place in ("host", "wasm", "arm64")
    }
    return {
        "largest_relative_difference": compared,
        "sparse_nodes": kt.mobile.sparse_path(path).nodes,
        "instructions": kt.mobile.instructions(path).instructions,
    }


def accuracy_of(path: pathlib.Path, test: datasets.Split) -> float:
    """Of the file, in LiteRT on this machine."""
    right = 0
    with runtime.get("host").open(path) as file:
        (name,) = file.inputs
        for image, label in zip(*test, strict=True):
            (logits,) = file.run({name: image[None]}).values()
            right += int(np.argmax(logits) == label)
    return right / len(test[0])


# -- what came of it ---------------------------------------------------------------


def table() -> str:
    """Sizes and speeds, relative to the dense float32 file."""
    rows = json.loads((RESULTS / "mobile_front.json").read_text())["rows"]
    found = {
        row["parameters"]["instructions"]: row["results"]
        for row in rows
        if "instructions" in row["parameters"]
    }
    (compared,) = (row["results"] for row in rows if "turns" in row["parameters"])
    places = [name for name in ("wasm", "host") if name in compared["places"]]
    titles = {"wasm": "faster in wasm", "host": "faster on x86"}
    header = ["file", "accuracy", "size", "gzip", *(titles[p] for p in places)]
    header.append("ARM64 instructions")
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * 6 + "|"]
    base = found[compared["rows"][0]["name"]]["instructions"]
    for row in compared["rows"]:
        speed_ups = [f"{row['latencies'][p]['speed_up']:.2f} x" for p in places]
        fewer = base / found[row["name"]]["instructions"]
        cells = [
            row["name"],
            f"{100 * row['accuracy']:.2f} %",
            f"{row['bytes'] / 1000:,.0f} kB",
            f"{row['gzip_bytes'] / 1000:,.0f} kB",
            *speed_ups,
            f"{fewer:.2f} x fewer",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def file_of(sparsity: float) -> str:
    return f"zeros_{100 * sparsity:g}"


if __name__ == "__main__":
    main()
