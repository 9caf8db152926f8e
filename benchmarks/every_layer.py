"""What becomes of every layer class that Keras exports.

    KERAS_BACKEND=tensorflow python -m benchmarks.every_layer [--only NAME ...]
        [--again]

A tiny model around each class (`every_layer_recipes`) is wrapped and pruned by half,
and then stripped, shrunk, saved and loaded, put into a ticket file and taken out of it,
and exported to each format. What comes out is compared with the user's own model whose
kernels were given the zeros by hand: `equal`, `refused` with the reason that the user
is told, or `WRONG`. Rows are measured in another process, so that one which crashes is
only a row.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_tickets as kt
from benchmarks import every_layer_recipes as recipes
from benchmarks.record import Record
from benchmarks.worker import Worker
from keras_tickets.runtime.isolated import isolated

SECONDS = 300
REFUSALS = (ValueError, RuntimeError, NotImplementedError)


def outputs(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Returns what a model computes in inference."""
    text = [x.tolist() if x.dtype.kind == "U" else x for x in inputs]
    tensors = [keras.ops.convert_to_tensor(x) for x in text]
    given = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(given)]


def with_zeros(ticket: kt.Ticket, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Returns what the user's own model computes once its kernels have the zeros."""
    variables = [kernel.variable for kernel in ticket.kernels]
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]
    for variable, mask in zip(variables, ticket.masks.values(), strict=True):
        variable.assign(keras.ops.convert_to_numpy(variable.value) * mask)
    try:
        return outputs(ticket.model, inputs)
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def largest(expected: list[np.ndarray], given: list[np.ndarray]) -> float:
    """Returns the largest difference, relative to the largest value."""
    gaps = [
        float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-6))
        for a, b in zip(expected, given, strict=True)
    ]
    return max(gaps)


def measure(name: str) -> dict[str, str]:
    """Returns the verdict of each thing that is done with a layer."""
    warnings.simplefilter("ignore")
    model, inputs = recipes.make(name)
    ticket = kt.wrap(model, kt.Magnitude(0.5, on_collapse="warn"))
    ticket.draw(verbose=0)
    wanted = with_zeros(ticket, inputs)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for column, do in COLUMNS.items():
            try:
                given = do(ticket, name, inputs, pathlib.Path(folder))
            except REFUSALS as error:
                found[column] = f"refused: {' '.join(str(error).split())[:400]}"
            except Exception as error:
                found[column] = f"WRONG: {type(error).__name__}: {str(error)[:400]}"
            else:
                gap = largest(wanted, given)
                found[column] = (
                    "equal" if gap < 1e-5 else f"WRONG: differs by {gap:.2g}"
                )
    return found


def _saved(ticket: Any, name: str, inputs: Any, folder: pathlib.Path) -> Any:
    try:
        ticket.model.save(folder / "model.keras")
        keras.models.load_model(folder / "model.keras", safe_mode=False)
    except Exception as error:
        raise ValueError(f"Keras cannot load the model itself: {error}") from error
    ticket.save(folder / "ticket.keras")
    loaded = keras.models.load_model(folder / "ticket.keras", safe_mode=False)
    return outputs(loaded, inputs)


def _ticket_file(ticket: Any, name: str, inputs: Any, folder: pathlib.Path) -> Any:
    ticket.save_ticket(folder / "x.ticket.npz")
    again, _ = recipes.make(name)
    return outputs(kt.load_ticket(folder / "x.ticket.npz", again), inputs)


def _file(suffix: str) -> Callable[..., Any]:
    def export(ticket: Any, name: str, inputs: Any, folder: pathlib.Path) -> Any:
        path = folder / f"x{suffix}"
        data = inputs if len(inputs) > 1 else inputs[0]
        specs = [_spec(x, t) for x, t in zip(inputs, ticket.model.inputs, strict=True)]
        signature = [specs if isinstance(ticket.model.input, list) else specs[0]]
        kt.export(ticket, path, samples=data, input_signature=signature, verbose=False)
        with isolated(path) as file:
            names = [tensor.name for tensor in ticket.model.inputs]
            given = file.run(dict(zip(names, inputs, strict=True)))
        return [given[name] for name in file.outputs]

    return export


def _spec(x: np.ndarray, tensor: Any) -> keras.InputSpec:
    return keras.InputSpec(shape=x.shape, dtype=tensor.dtype, name=tensor.name)


COLUMNS: dict[str, Callable[..., Any]] = {
    "strip": lambda ticket, name, x, folder: outputs(ticket.strip(), x),
    "shrink": lambda ticket, name, x, folder: outputs(kt.shrink(ticket, False), x),
    "save": _saved,
    "load_ticket": _ticket_file,
    "tflite": _file(".tflite"),
    "onnx": _file(".onnx"),
}


def tried(worker: Worker, name: str) -> dict[str, str]:
    """Like `measure`, but outlives it."""
    try:
        return worker(name)
    except RuntimeError as error:
        return dict.fromkeys(COLUMNS, f"WRONG: {error}")


def counts(rows: list[dict[str, Any]]) -> str:
    """Returns how many rows of each column came out how."""
    lines = []
    for column in COLUMNS:
        words = [row["results"][column].partition(":")[0] for row in rows]
        found = collections.Counter(words)
        lines.append(f"{column}: " + ", ".join(f"{n} {w}" for w, n in found.items()))
    return "\n".join(lines)


def main() -> None:
    """Runs what is not recorded yet, and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--again", action="store_true", help="what was not equal")
    arguments = parser.parse_args()
    name = f"every_layer_{keras.backend.backend()}"
    record = Record(name, "made by the script: noise, ids and words")
    if arguments.again:
        record.forget(lambda row: {*row["results"].values()} != {"equal"})
    if arguments.only:
        record.forget(lambda row: row["parameters"]["layer"] in arguments.only)
    with Worker(measure, SECONDS) as worker:
        for layer in arguments.only or recipes.available():
            record.row(lambda layer=layer: tried(worker, layer), layer=layer)
    print(counts(record.content["rows"]))


if __name__ == "__main__":
    main()
