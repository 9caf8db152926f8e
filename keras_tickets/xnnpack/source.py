"""Reads a user's file for `diagnose`."""

from __future__ import annotations

import os

from keras_tickets._util.damage import reading
from keras_tickets._util.files import check_source
from keras_tickets.runtime.formats import SUFFIXES
from keras_tickets.xnnpack.analysis import (
    check_target,
    diagnose_content,
)
from keras_tickets.xnnpack.diagnosis import Diagnosis

TFLITE = {".tflite": SUFFIXES[".tflite"]}


def diagnose_file(path: str | os.PathLike[str], target: str = "xnnpack") -> Diagnosis:
    """Tells what of a file runs sparse, without Keras.

    Args:
        path: A `.tflite` file, of any origin.
        target: Whose sparse kernels are meant.

    Returns:
        The report.

    Raises:
        ValueError: If there is no such target, the suffix is another one, or the file
            is damaged.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        ImportError: If `keras-tickets[export]` is not installed.
    """
    check_target(target)
    file = check_source(path, TFLITE)
    content = file.read_bytes()
    with reading(f"'{path}' cannot be read as .tflite"):
        return diagnose_content(content, str(path))
