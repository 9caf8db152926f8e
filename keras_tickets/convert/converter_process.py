"""Converts in a second process, on the TensorFlow backend.

    python -m keras_tickets.convert.converter_process

The route for JAX and torch users: TFLite's converter reads TensorFlow graphs only, and
Keras' backend cannot change within a process. And for conversions that may crash. The
parent saves the plain model as `.keras` and says what to do with it in one line on
stdin; the child loads and converts it, and answers on stdout.

TensorFlow takes seconds to start, so one such process is kept until this one ends. It
knows Keras' classes only: a model with classes of the user's own gets a new process,
which imports their modules as they are now.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import re
import signal
import sys
import tempfile
import zipfile
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets._util.errors import ConversionError
from keras_tickets._util.process import (
    Conversation,
    EndedError,
    KeptProcess,
    RefusedError,
    converse,
)
from keras_tickets._util.signature import Signature, from_json, to_json
from keras_tickets.backend.keras_private import sublayers
from keras_tickets.backend.random_inputs import Sample
from keras_tickets.convert import converters
from keras_tickets.runtime.interpreters import listen

# Modules whose classes each process with Keras knows.
_KNOWN = ("keras", "builtins", "keras_tickets")


def convert_in_child(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    precision: str,
    opset: int | None,
    data: list[Sample],
) -> None:
    """Convert a plain model of any backend.

    Args:
        model: A plain Keras model.
        path: Where to write; the suffix chooses the format.
        signature: The inputs of the file.
        precision: The name of the precision of a `.tflite`.
        opset: The operator set of an `.onnx`.
        data: Inputs that show the range of the activations.

    Raises:
        ConversionError: If the child could not load or convert the model, or crashed.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder, "model.keras")
        model.save(saved)
        custom = _custom_classes(model, saved)
        job = {
            "name": model.name,
            "model": str(saved),
            "path": str(path),
            "signature": to_json(signature),
            "precision": precision,
            "opset": opset,
            "data": str(_save(data, pathlib.Path(folder, "data.npz"))),
            "custom": custom,
            "image_data_format": keras.config.image_data_format(),
        }
        try:
            ask = _ask_new if custom else _KEPT.ask
            ask(job, "converted")
        except RefusedError as refused:
            raise ConversionError(str(refused)) from refused
        except EndedError as ended:
            raise ConversionError(
                f"The process that converts '{model.name}' on the TensorFlow backend "
                f"{ended.how}. For recurrent layers in int8 build them with "
                "unroll=True, or use precision='int8-dynamic' or 'float16'; else "
                f"choose another precision or format.{ended.words}"
            ) from ended


def _start() -> AbstractContextManager[Conversation]:
    command = [sys.executable, "-m", "keras_tickets.convert.converter_process"]
    return converse(command, _environment())


def _ask_new(job: dict[str, Any], what: str) -> dict[str, Any]:
    with _start() as converter:
        return converter.ask(job, what)


_KEPT = KeptProcess(_start)


def _save(data: list[Sample], path: pathlib.Path) -> pathlib.Path:
    np.savez(path, *[array for sample in data for array in tree.flatten(sample)])
    return path


def _load(path: str, signature: Signature) -> list[Sample]:
    with np.load(path) as stored:
        arrays = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    width = len(tree.flatten(signature))
    return [
        tree.pack_sequence_as(signature, arrays[start : start + width])
        for start in range(0, len(arrays), width)
    ]


def _environment() -> dict[str, str]:
    """Return the child's: the same modules, but neither the GPU nor a strict filter."""
    return {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The parent may hold all of the GPU's memory; converting needs none.
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
        "PYTHONWARNINGS": "ignore",
    }


def _custom_classes(
    model: keras.Model, saved: pathlib.Path
) -> list[tuple[str | None, str]]:
    """(module, name) of the classes and functions that are not Keras' own."""
    found: set[tuple[str | None, str]] = {
        (type(layer).__module__, type(layer).__name__) for layer in sublayers(model)
    }
    with zipfile.ZipFile(saved) as archive:
        found |= set(_named_in(json.loads(archive.read("config.json"))))
    # A config may hold names from a stranger's file: no module is imported for them.
    found = {(m, n) for m, n in found if m is None or m in sys.modules}
    custom = {(m, n) for m, n in found if (m or "").split(".")[0] not in _KNOWN}
    # Keras writes no module for what lives in `__main__`; the layers name it.
    named = {name for module, name in custom if module}
    return sorted(
        ((m, n) for m, n in custom if m or n not in named), key=lambda x: x[1]
    )


def _named_in(config: Any) -> list[tuple[str | None, str]]:
    if isinstance(config, dict):
        found = [entry for value in config.values() for entry in _named_in(value)]
        if {"module", "class_name", "config"} <= config.keys():
            name = config["class_name"]
            found.append(
                (config["module"], config["config"] if name == "function" else name)
            )
        return [(module, str(name)) for module, name in found]
    if isinstance(config, list):
        return [entry for value in config for entry in _named_in(value)]
    return []


def _explain(
    job: dict[str, Any], error: Exception, unimportable: dict[str, str]
) -> str:
    missing = [
        f"{class_name} (from {module or 'a module that Keras did not record'})"
        for module, class_name in job["custom"]
    ]
    classes = ", ".join(missing) or "none"
    unimported = "".join(
        f"\nModule '{module}' could not be imported: {why}"
        for module, why in unimportable.items()
    )
    # Keras appends the whole config of the model, which says nothing more.
    happened = re.sub(
        r"\n+config=.*?\n\n|Full object config:.*",
        " ",
        f"{type(error).__name__}: {error}"[-3000:],
        flags=re.S,
    )
    return (
        f"'{job['name']}' is converted in a second process on the TensorFlow backend, "
        f"which could not load it. Classes of your own in it: {classes}. The second "
        "process must be able to import them: put them into a module (not a script or "
        "a notebook cell), mark them with "
        "`@keras.saving.register_keras_serializable()`, use `keras.ops` in them rather "
        "than one backend's functions, and give them a `get_config`."
        f"{unimported}\nWhat happened: {happened.strip()}"
    )


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job; return how it went."""
    found, unimportable = _import_classes(job["custom"])
    keras.config.set_image_data_format(job["image_data_format"])
    try:
        # `safe_mode` guards against strangers' files; this one is the user's own.
        model = keras.models.load_model(
            job["model"], custom_objects=found, compile=False, safe_mode=False
        )
    except Exception as error:
        return {"error": _explain(job, error, unimportable)}
    path, signature = pathlib.Path(job["path"]), from_json(job["signature"])
    try:
        data = _load(job["data"], signature)
        converters.write(model, path, signature, job["precision"], job["opset"], data)
    except Exception as error:
        return {"error": str(error)[-3000:]}
    return {}


def _import_classes(
    custom: list[tuple[str | None, str]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Import the user's classes; those marked as serializable register themselves.

    Returns:
        Class name -> class, and module name -> why it could not be imported.
    """
    found, unimportable = {}, {}
    for module, name in custom:
        if module in (None, "__main__"):
            continue
        try:
            found[name] = getattr(importlib.import_module(module), name)
        except Exception as error:
            unimportable[module] = f"{type(error).__name__}: {error}"
    return found, unimportable


def main() -> None:
    """Do what each line of stdin says; exit when the parent closes stdin."""
    jobs = listen()
    # Ctrl-C reaches the processes of a terminal; the parent ends this one if it must.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a user's class prints is no answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in jobs:
        print(json.dumps(_run(json.loads(line))), file=answers, flush=True)
        # The next job finds names and memory as in a new process.
        keras.utils.clear_session()


if __name__ == "__main__":
    main()
