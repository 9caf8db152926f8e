"""What one call goes through; a program of its own, which `house` starts.

    python -P benchmarks/house_calls.py fit PACKAGE
    python -P benchmarks/house_calls.py export PACKAGE FILE

`fit` wraps, compiles and fits a small model for one short epoch; `export` writes a
small ticket to FILE. Prints JSON: the files in the folder PACKAGE of which a function
was called meanwhile, and how often a whole `.tflite` was read or written.
"""

from __future__ import annotations

import collections
import inspect
import json
import pathlib
import sys
import threading
from typing import Any

import keras
import numpy as np
from ai_edge_litert.schema_py_generated import Model, ModelT

import keras_tickets as kt


class Calls:
    """Counts the Python functions that are called in a block, by their code."""

    def __init__(self) -> None:
        self.counts: collections.Counter[Any] = collections.Counter()

    def __enter__(self) -> Calls:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: Any, event: str, _: Any) -> None:
        if event == "call":
            # Equal code in two files is equal to Python.
            self.counts[frame.f_code.co_filename, frame.f_code] += 1

    def files(self, package: pathlib.Path) -> list[str]:
        """Returns the files in a folder of which a function was called."""
        # The bodies of modules and classes run when they are imported.
        called = {f for f, c in self.counts if c.co_flags & inspect.CO_OPTIMIZED}
        return sorted(f for f in called if pathlib.Path(f).is_relative_to(package))

    def of(self, function: Any) -> int:
        return self.counts[function.__code__.co_filename, function.__code__]


def enter_fit(package: pathlib.Path) -> dict[str, Any]:
    model, data = small_model()
    with Calls() as calls:
        fit(model, data)
    return {"files": calls.files(package)}


def enter_export(package: pathlib.Path, file: str) -> dict[str, Any]:
    ticket = fit(*small_model())
    with Calls() as calls:
        kt.export(ticket, file, verbose=False)
    return {
        "files": calls.files(package),
        "parses": calls.of(ModelT.InitFromObj.__func__),
        "views": calls.of(Model.GetRootAs.__func__),
        "packs": calls.of(ModelT.Pack),
    }


def small_model() -> tuple[Any, tuple[Any, Any]]:
    """Returns five layers, and data for them; XNNPACK can run the file sparse.

    The image is odd: export then has to write out the padding of the strides as well.
    """
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((17, 17, 3)),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    inputs = np.random.default_rng(0).random((32, 17, 17, 3), np.float32)
    return model, (inputs, np.arange(32) % 10)


def fit(model: Any, data: tuple[Any, Any]) -> Any:
    # By default masks move every 100 steps, later than this run ends.
    ticket = kt.wrap(model, kt.RigL(0.9, update_every=1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ticket.compile("adam", loss)
    ticket.fit(*data, batch_size=8, epochs=1, verbose=0)
    return ticket


def main() -> None:
    role, package, *file = sys.argv[1:]
    if pathlib.Path(kt.__file__).parent != pathlib.Path(package):
        raise ImportError(f"Expected the package in {package}, found {kt.__file__}.")
    enter = {"fit": enter_fit, "export": enter_export}[role]
    print(json.dumps(enter(pathlib.Path(package), *file)))


if __name__ == "__main__":
    main()
