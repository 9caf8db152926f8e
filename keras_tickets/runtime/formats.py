"""The formats that can be written; the suffix of a path chooses one."""

from __future__ import annotations

from typing import Any

from keras_tickets.onnx import file as onnx_file
from keras_tickets.tflite import file as tflite_file

SUFFIXES = {".tflite": "LiteRT", ".onnx": "ONNX"}

# The room that reads and rewrites the files of each format; all have one interface.
FILES: dict[str, Any] = {".tflite": tflite_file, ".onnx": onnx_file}
