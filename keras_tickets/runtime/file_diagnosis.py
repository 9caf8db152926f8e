"""`diagnose` of a file: its sizes are chosen, and found for each tensor, first."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_tickets._util.damage import reading
from keras_tickets._util.files import check_source
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.runtime import sizes
from keras_tickets.runtime.formats import SUFFIXES
from keras_tickets.runtime.isolated import isolated
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.xnnpack.analysis import analyze
from keras_tickets.xnnpack.diagnosis import Diagnosis


def diagnose_file(
    path: str | os.PathLike[str], input_shapes: Mapping[str, Any] | None = None
) -> Diagnosis:
    """Predict what of the file at a path runs sparse, without Keras.

    A file that leaves sizes open is run once at those that are chosen: only then is it
    known how large each of its images is.

    Args:
        path: A `.tflite` file of any origin.
        input_shapes: The shapes of its inputs by their names, where it leaves sizes
            open.

    Returns:
        The report.

    Raises:
        ValueError: If the suffix is another one, the file is damaged, or has no such
            input shapes.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        ImportError: If `keras-tickets[export]` is not installed.
    """
    found = check_source(path, SUFFIXES)
    if found.suffix == OnnxFile.suffix:
        raise ValueError(refusal(path))
    with reading(f"'{path}' cannot be read as .tflite"):
        file = TfliteFile.read(found)
        assumed = ""
        if any(None in port.shape for port in file.interface().inputs) or input_shapes:
            assumed = _sized(file, found, input_shapes)
        return dataclasses.replace(analyze(file, str(path)), assumed=assumed)


def refusal(path: str | os.PathLike[str]) -> str:
    """Say why no `.onnx` is diagnosed, and what helps instead."""
    return (
        f"'{path}' is an .onnx file, and none of these runs sparse on a phone: ONNX "
        "Runtime computes with all zeros, which make the file smaller and nothing "
        "faster. `inspect` shows its zeros, `benchmark` its time. For LiteRT's sparse "
        "kernels export the model as .tflite, kt.export(model, 'model.tflite'), and "
        "diagnose that file, or the model itself."
    )


def _sized(
    file: TfliteFile, path: pathlib.Path, given: Mapping[str, Any] | None
) -> str:
    """Give each tensor the shape that it has in a run; return what was assumed."""
    try:
        chosen = sizes.choose(path, given)
        if not file.stores(chosen.shapes):
            _resize(file, path, chosen.shapes)
    except RuntimeError as error:
        return (
            "the sizes that the file stores, where 1 stands for an open one: it cannot "
            f"be run to find others. {error}"
        )
    return chosen.told


def _resize(file: TfliteFile, path: pathlib.Path, shapes: sizes.Shapes) -> None:
    values = sizes.draw(path, file.interface().inputs, shapes)
    with isolated(path, timeout=sizes.PATIENCE) as runtime:
        found = runtime.shapes(values)
    # Of the graph that is run first; others are bodies of loops and the like.
    for number, tensor in enumerate(file.model.subgraphs[0].tensors):
        if number in found:
            tensor.shape = np.array(found[number], np.int32)
