"""The formats that can be written; the suffix of a path chooses one."""

from __future__ import annotations

SUFFIXES = {".tflite": "LiteRT", ".onnx": "ONNX"}
