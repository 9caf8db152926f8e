"""Does XNNPACK do what our table of its rules says? And is the export right?

    KERAS_BACKEND=tensorflow python -m benchmarks.mobile_graphs [--only NAME ...]
        [--again] [--place arm64]

Each network of `benchmarks.mobile_zoo` is pruned and exported. What `kt.diagnose` says
of the file is compared with the kernels that ran (`kt.mobile.sparse_path`), and its
outputs with those of Keras (`kt.verify`). A network is

- *as predicted* if the same number of nodes ran in each sparse kernel,
- *right* if its outputs are those of Keras, within the tolerance of its precision,
- *guarded* if the export stored tensors with their zeros, with a reason.

Networks that are known to go wrong are exported once more with the guard taken out
(`forced`): the table has to say that they break, and they have to be seen to.
Networks of `SAFE` have to run sparse.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

import keras_tickets as kt
from benchmarks import mobile_zoo as zoo
from benchmarks.record import Record
from benchmarks.unguarded import unguarded

# Where files run, and other names there of kernels for blocks of outputs.
PLACES: dict[str, dict[str, str]] = {
    "arm64": {},
    "wasm": {"f32 32x2": "f32 8x2", "f32 32x4": "f32 8x4"},
}

SAMPLES = 4


def ticket_of(graph: zoo.Graph) -> kt.Ticket:
    """A network of the zoo, pruned."""
    pruner = kt.Magnitude(
        graph.sparsity, allocation="uniform", structure=graph.structure
    )
    ticket = kt.wrap(graph.build(), pruner)
    ticket.draw(verbose=0)
    return ticket


def measure(name: str, place: str, forced: bool) -> dict[str, Any]:
    """Exports one network, predicts what runs, and looks.

    Returns:
        What was predicted and what ran, and how far the outputs are from Keras.
    """
    graph = zoo.GRAPHS[name]
    ticket = ticket_of(graph)
    samples = np.random.default_rng(3).random((SAMPLES, *graph.shape), "float32")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "graph.tflite")
        report = export(ticket, path, graph, samples, forced)
        found = kt.diagnose(path)
        predicted = {PLACES[place].get(k, k): n for k, n in found.kernels.items()}
        ran = counted(place, path)
        error, wrong = difference(path, ticket, samples, place)
    return {
        "predicted": predicted,
        "ran": ran,
        "as_predicted": ran == predicted,
        "breaks": [layer.reason for layer in found.layers if layer.runs == "breaks"],
        "difference": error,
        "wrong": wrong,
        "right": wrong is None,
        "guarded": sorted(set(report.barred.values())),
        "bytes": report.bytes,
        "dense_bytes": report.dense_bytes,
    }


def export(
    ticket: kt.Ticket,
    path: pathlib.Path,
    graph: zoo.Graph,
    samples: np.ndarray,
    forced: bool,
) -> kt.ExportReport:
    """Exports; without the guard if the file is to show what it is for."""
    with unguarded() if forced else contextlib.nullcontext():
        return kt.export(
            ticket,
            path,
            precision=graph.precision,
            representative_data=samples if graph.precision == "int8" else None,
            samples=samples,
            verbose=False,
        )


def counted(place: str, path: pathlib.Path) -> dict[str, int] | str:
    """How many nodes ran in which sparse kernel; or why the file does not run."""
    try:
        ran = kt.mobile.sparse_path(path, on=place)
    except RuntimeError as error:
        return _short(error, path)
    kernels = collections.Counter[str]()
    for kernel in (*ran.convolutions, *ran.dense):
        kernels[kernel.name] += kernel.nodes
    return {name: nodes for name, nodes in sorted(kernels.items()) if nodes}


def difference(
    path: pathlib.Path, ticket: kt.Ticket, samples: np.ndarray, place: str
) -> tuple[float | None, str | None]:
    """How far a file is from Keras in a place, and what is wrong if it is."""
    try:
        return float(kt.verify(path, ticket, samples, on=place).max_rel), None
    except RuntimeError as error:
        return None, _short(error, path)


def _short(error: Exception, path: pathlib.Path) -> str:
    return " ".join(str(error).replace(str(path), "graph.tflite").split())[:400]


def is_well(name: str, forced: bool, results: dict[str, Any]) -> bool:
    """Whether a row is as it must be."""
    if forced:
        return bool(results["breaks"]) and not results["right"]
    well = results["as_predicted"] and results["right"] and not results["breaks"]
    return well and (name not in zoo.SAFE or bool(results["ran"]))


def main() -> None:
    """Runs what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=zoo.GRAPHS, nargs="+", metavar="NAME")
    parser.add_argument("--place", choices=PLACES, default="arm64")
    parser.add_argument("--again", action="store_true", help="repeat what went wrong")
    arguments = parser.parse_args()
    record = Record("mobile_graphs", "made by the script: uniform noise")
    if arguments.again:
        record.forget(
            lambda row: (
                not is_well(
                    row["parameters"]["graph"],
                    row["parameters"]["forced"],
                    row["results"],
                )
            )
        )
    rows = [(name, False) for name in arguments.only or zoo.GRAPHS]
    rows += [(name, True) for name, _ in rows if name in zoo.PLANTED]
    wrong = 0
    for name, forced in rows:
        run = functools.partial(measure, name, arguments.place, forced)
        results = record.row(run, graph=name, place=arguments.place, forced=forced)
        well = is_well(name, forced, results)
        wrong += not well
        print("well " if well else "WRONG", name, forced, results, flush=True)
    print(f"{len(rows)} rows, {wrong} not as they must be")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
