"""`diagnose` of a file: its sizes are chosen, and found for each tensor, first."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_tickets._util.damage import reading
from keras_tickets._util.files import check_source
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.runtime import fixed_copy, sizes
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.xnnpack.analysis import analyze
from keras_tickets.xnnpack.diagnosis import Diagnosis

SUFFIXES = {TfliteFile.suffix: TfliteFile.format}


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
    if is_onnx(path):
        raise ValueError(refusal(path))
    found = check_source(path, SUFFIXES)
    damaged = f"'{path}' cannot be read as .tflite"
    with reading(damaged):
        file = TfliteFile.read(found)
        ports = file.interface().inputs
    is_open = any(None in port.shape for port in ports)
    assumed = _sized(file, found, input_shapes) if is_open or input_shapes else ""
    with reading(damaged):
        return dataclasses.replace(analyze(file, str(path)), assumed=assumed)


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is that of an `.onnx` file."""
    return pathlib.Path(path).suffix == OnnxFile.suffix


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
        fixed_copy.resize(file, path, chosen.shapes)
    except RuntimeError as error:
        return (
            "the sizes that the file stores, where 1 stands for an open one: it cannot "
            f"be run to find others. {error}"
        )
    return chosen.told
