"""What zeros in blocks bring in dense and attention layers.

    keras-tickets setup arm64
    KERAS_BACKEND=tensorflow python -m benchmarks.mobile_dense [--only NAME ...]

A perceptron and a transformer encoder with random weights; all dense layers, among them
the projections of the attention, are pruned to the same sparsity each. Every file is
compared with its model, on this machine and on emulated ARM64, where also the nodes in
sparse kernels and the executed instructions are counted. Then it and the dense float32
file take turns, in alternating order, each turn in an interpreter of its own.

On this machine, in real time, a turn is the median of its runs, on emulated ARM64 its
fastest run; a speed-up is the median ratio of the same turn, its spread that of the
ratios. On ARM64 it is a ratio of emulated times: no phone's, and more than a phone
gains.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_tickets as kt
from benchmarks.noise import coloured_noise
from benchmarks.record import Record
from benchmarks.turns import both, in_real_time
from benchmarks.zoo import Positions
from keras_tickets._util.files import gzip_size
from keras_tickets.mobile.comparing import speed_up

CLASSES = 10


def mlp() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((784,)),
            *[layers.Dense(units, activation="relu") for units in (1024, 1024, 512)],
            layers.Dense(CLASSES),
        ],
        name="mlp",
    )


def transformer() -> keras.Model:
    frames = keras.Input((32, 64))
    x = Positions()(layers.Dense(256)(frames))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 64)(y, y)
        y = layers.Dense(1024, activation="relu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(256)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(frames, layers.Dense(CLASSES)(x), name="transformer")


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "mlp": mlp,
    "transformer": transformer,
}

# Precision, structure, sparsity; the most telling first, for runs that are stopped.
DENSE = ("float32", "unstructured", 0.0)
CASES = [
    DENSE,
    ("float32", "block_1x4", 0.9),
    ("int8", "block_1x16", 0.9),
    ("int8", "unstructured", 0.0),
    ("float32", "block_1x4", 0.95),
    ("float32", "block_1x4", 0.8),
    ("float32", "unstructured", 0.9),
]


def main() -> None:
    """Runs what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NETWORKS, nargs="+", default=[*NETWORKS])
    parser.add_argument("--turns", type=int, default=11, help="turns on this machine")
    parser.add_argument("--runs", type=int, default=100, help="runs of one of these")
    parser.add_argument("--emulated-turns", type=int, default=3)
    parser.add_argument("--emulated-runs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table only")
    numbers = vars(parser.parse_args())
    only, table = numbers.pop("only"), numbers.pop("table")
    record = Record("mobile_dense", "noise, made by the script: only times count")
    for (precision, structure, sparsity), network in itertools.product(CASES, only):
        parameters = {
            "network": network,
            "precision": precision,
            "structure": structure,
            "sparsity": sparsity,
            **numbers,
        }
        if not table:
            results = record.row(lambda p=parameters: measure(**p), **parameters)
            print(parameters, results, flush=True)
    print(as_table(record.content["rows"]))


def measure(
    network: str,
    precision: str,
    structure: str,
    sparsity: float,
    turns: int,
    runs: int,
    emulated_turns: int,
    emulated_runs: int,
) -> dict[str, Any]:
    """Everything about one file."""
    dense = (network, *DENSE)
    case = (network, precision, structure, sparsity)
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name, "file.tflite")
        path.write_bytes(exported(*case)[2])
        results = {**size(path), **computed(path, *case), **counted(path)}
        if case == dense:
            return results
        rival = pathlib.Path(name, "dense.tflite")
        rival.write_bytes(exported(*dense)[2])
        return {
            **results,
            "host": in_real_time(rival, path, turns, runs),
            "arm64_emulated": emulated(rival, path, emulated_turns, emulated_runs),
        }


@functools.cache
def exported(
    network: str, precision: str, structure: str, sparsity: float
) -> tuple[keras.Model, np.ndarray, bytes]:
    """The model or ticket, inputs for it, and its file."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[network]()
    inputs = coloured_noise(model.input_shape[1:])
    if sparsity:
        pruner = kt.Magnitude(sparsity, allocation="uniform", structure=structure)
        tables = [lr for lr in model.layers if isinstance(lr, Positions)]
        model = kt.wrap(model, pruner, skip=tables or None)
        model.draw()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file.tflite")
        kt.export(
            model,
            path,
            precision=precision,
            samples=inputs,
            representative_data=inputs if precision == "int8" else None,
            verbose=False,
        )
        return model, inputs, path.read_bytes()


def size(path: pathlib.Path) -> dict[str, int]:
    content = path.read_bytes()
    return {
        "bytes": len(content),
        "gzip_bytes": gzip_size(content),
    }


def computed(path: pathlib.Path, *case: Any) -> dict[str, float]:
    """How far the outputs are from those of Keras; too far raises."""
    model, inputs, _ = exported(*case)
    return {
        f"max_relative_difference_{place}": kt.verify(
            path, model, samples=inputs[:4], on=place
        ).max_rel
        for place in ("host", "arm64")
    }


def counted(path: pathlib.Path) -> dict[str, Any]:
    """What ARM64 executes, and in which kernels."""
    ran = kt.mobile.sparse_path(path)
    return {
        "sparse_nodes": {
            kernel.name: kernel.nodes for kernel in ran.dense if kernel.calls
        },
        "arm64_instructions": kt.mobile.instructions(path).instructions,
    }


def emulated(
    dense: pathlib.Path, file: pathlib.Path, turns: int, runs: int
) -> dict[str, float]:
    """The ratio of the fastest emulated runs of a turn: median, least and largest."""

    def turn(path: pathlib.Path) -> float:
        report = kt.benchmark(path, on="arm64", runs=runs, warmup=1, verbose=False)
        return report.min_ms

    times = both(turn, dense, file, turns)
    names = ("speed_up", "speed_up_min", "speed_up_max")
    return {name: round(x, 3) for name, x in zip(names, speed_up(*times), strict=True)}


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown, by network."""
    names = (
        *("file", "bytes", "gzip", "real time, x86", "emulated ARM64"),
        *("ARM64 instructions", "nodes in sparse kernels", "difference to Keras"),
    )
    lines = [names, ["---", *["--:"] * (len(names) - 1)]]
    lines += [_cells(row) for row in sorted(rows, key=_network)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _network(row: dict[str, Any]) -> str:
    return str(row["parameters"]["network"])


def _cells(row: dict[str, Any]) -> list[str]:
    case, found = row["parameters"], row["results"]
    zeros = f"{case['structure']}, {case['sparsity']:.0%}"
    places = ("max_relative_difference_host", "max_relative_difference_arm64")
    return [
        f"{case['network']}, {case['precision']}, "
        + (zeros if case["sparsity"] else "dense"),
        f"{found['bytes']:,}",
        f"{found['gzip_bytes']:,}",
        _times(found.get("host"), "p10", "p90"),
        _times(found.get("arm64_emulated"), "min", "max"),
        f"{found['arm64_instructions']:,}",
        str(sum(found["sparse_nodes"].values())),
        f"{max(found[place] for place in places):.0e}",
    ]


def _times(ratio: dict[str, float] | None, least: str, most: str) -> str:
    if ratio is None:
        return "1"
    spread = [ratio[f"speed_up_{end}"] for end in (least, most)]
    return f"{ratio['speed_up']:.2f} ({spread[0]:.2f} to {spread[1]:.2f})"


if __name__ == "__main__":
    main()
