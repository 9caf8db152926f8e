"""The formats of files; the suffix of a path chooses one.

A new format is a `ModelFile` in a folder of its own and a line here.
"""

from __future__ import annotations

import pathlib

from keras_tickets._util.model_file import ModelFile
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.tflite.file import TfliteFile

FORMATS: dict[str, type[ModelFile]] = {
    kind.suffix: kind for kind in (TfliteFile, OnnxFile)
}

SUFFIXES = {suffix: kind.format for suffix, kind in FORMATS.items()}


def read(path: pathlib.Path) -> ModelFile:
    """Read the file at a path, whose suffix is in `FORMATS`."""
    return FORMATS[path.suffix].read(path)
