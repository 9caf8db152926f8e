"""Which precision and which zeros go together in a `.tflite`, and what breaks.

    KERAS_BACKEND=tensorflow python -m benchmarks.precisions

A network of 1x1 convolutions and one of dense layers, 90 % of the prunable weights
zero, in each structure and precision: all zeros stored; each tensor without zeros where
`kt.export` finds that safe (`auto`); and all of them without, safe or not (`forced`),
where `auto` held back. Files take turns on this host, one thread, beside the dense
float32 file; a ratio is the median of those of the same turn, beside least and most.

Weights are random and BatchNorm settled on noise, so no accuracies. The page
`docs/precisions.md` is written from the record.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_tickets as kt
from benchmarks import precisions_page
from benchmarks.noise import calm, coloured_noise, settle
from benchmarks.record import Record
from benchmarks.unguarded import unguarded
from keras_tickets.convert import tflite_encoding
from keras_tickets.mobile.comparing import speed_up

SPARSITY, SAMPLES, TURNS, RUNS = 0.9, 32, 7, 40
PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")
CASES = (
    ("convolutions", "unstructured"),
    ("dense layers", "unstructured"),
    ("dense layers", "block_1x4"),
    ("dense layers", "block_1x16"),
)
NUMBERS = ("bytes", "gzip_bytes", "reference_ratio", "max_relative_difference")


def convolutions() -> keras.Model:
    return keras.applications.MobileNet(
        (96, 96, 3), alpha=0.5, weights=None, classes=16, classifier_activation=None
    )


def dense_layers() -> keras.Model:
    sizes = [layers.Dense(n, activation="relu") for n in (1024, 1024, 512)]
    return keras.Sequential([keras.Input((784,)), *sizes, layers.Dense(16)])


NETWORKS = {"convolutions": convolutions, "dense layers": dense_layers}


def measure(network: str, structure: str) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    ticket = kt.wrap(
        NETWORKS[network](),
        kt.Magnitude(SPARSITY, allocation="uniform", structure=structure),
    )
    ticket.draw()
    inputs = coloured_noise(tuple(ticket.model.inputs[0].shape[1:]), SAMPLES)
    calm(ticket)
    settle(ticket, inputs)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = {
            f"{precision} {way}": result
            for precision in PRECISIONS
            for way, result in ways(ticket, inputs, precision, folder)
        }
        times(folder, found)
    return found


def ways(
    ticket: kt.Ticket, inputs: np.ndarray, precision: str, folder: pathlib.Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what became of each way to store the zeros of one precision."""
    write = functools.partial(export, ticket, inputs, precision, folder)
    yield "dense", write("dense", sparse=False)
    automatic = write("auto")
    yield "auto", automatic
    if automatic["barred"]:
        with unguarded(all_ways):
            yield "forced", write("forced")


def export(
    ticket: kt.Ticket,
    inputs: np.ndarray,
    precision: str,
    folder: pathlib.Path,
    way: str,
    **arguments: Any,
) -> dict[str, Any]:
    try:
        report = kt.export(
            ticket,
            folder / f"{precision} {way}.tflite",
            precision=precision,
            samples=inputs,
            representative_data=inputs if precision == "int8" else None,
            verbose=False,
            **arguments,
        )
    except RuntimeError as error:
        return {"breaks": " ".join(str(error).split())[:300]}
    numbers = report.to_dict()
    return {key: numbers[key] for key in NUMBERS} | {
        "encodings": report.encodings,
        "barred": sorted(set(report.barred.values())),
    }


def all_ways(constant: Any, readers: Any, precision: str) -> tuple[list[Any], str]:
    """Every way to store a weight without zeros, also where the export knows better."""
    blocks = tflite_encoding.block_encodings(constant, readers)
    return [tflite_encoding.row_encoding(constant), *blocks], ""


def times(folder: pathlib.Path, found: dict[str, dict[str, Any]]) -> None:
    """Adds to each file that runs its time over that of the dense float32 file."""
    medians: dict[str, list[float]] = {key: [] for key in found}
    for turn in range(TURNS):
        keys = [key for key in found if "breaks" not in found[key]]
        for key in keys if turn % 2 else reversed(keys):
            path = folder / f"{key}.tflite"
            report = kt.benchmark(path, runs=RUNS, verbose=False)
            medians[key].append(report.median_ms)
    base = medians["float32 dense"]
    for key, values in medians.items():
        if values:
            found[key]["time_ratio"] = [round(x, 3) for x in speed_up(values, base)]


def main() -> None:
    record = Record("precisions", "noise, made by the script: sizes and times only")
    for network, structure in CASES:
        row = functools.partial(measure, network, structure)
        print(record.row(row, network=network, structure=structure), flush=True)
        precisions_page.write(record.content)


if __name__ == "__main__":
    main()
