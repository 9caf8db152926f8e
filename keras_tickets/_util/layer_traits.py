"""What layers and variables of Keras are, told by their names and attributes.

Nothing here imports Keras, so that the rooms that only read files may ask as well.
"""

from __future__ import annotations

import re
from typing import Any


def is_bias(name: str) -> bool:
    """Return whether a variable of this name is a bias."""
    return name.endswith("bias")


def is_added(name: str) -> bool:
    """Return whether a variable of this name is a bias, or a normalization's shift."""
    return is_bias(name) or re.search(r"(^|_)beta$", name) is not None


def is_quantized(layer: Any) -> bool:
    """Return whether the weights of a layer are stored as integers."""
    return getattr(layer, "quantization_mode", None) is not None


def has_lora(layer: Any) -> bool:
    """Return whether a layer computes with LoRA weights beside its kernel."""
    return bool(getattr(layer, "lora_enabled", False))
