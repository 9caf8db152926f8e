"""What layers and variables of Keras are, told by their names and attributes.

Nothing here imports Keras, so that the modules that only read files may ask as well.
"""

from __future__ import annotations

import re
from typing import Any

SPATIAL_DROPOUT = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")

IDENTITY = (
    *("Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("ActivityRegularization", "Identity", *SPATIAL_DROPOUT),
)
"""Layers that do nothing in inference."""

POSITIVE_AT_ZERO = ("Sigmoid", "HardSigmoid", "Softplus")
"""Operations on each number alone that make a positive one of zero."""

ELEMENTWISE = (
    *("ReLU", "LeakyReLU", "ELU"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Silu", "Gelu"),
    *("HardSilu", "Tanh", "HardTanh", "Softsign", "Absolute", "Abs", "Negative"),
    *POSITIVE_AT_ZERO,
)
"""Layers and operations that compute each number from the one at its place alone."""


FOREIGN = ("TorchModuleWrapper", "TFSMLayer")
"""Layers whose weights are computed with by torch or a SavedModel, not by Keras."""


def is_foreign(layer: Any) -> bool:
    """Return whether a layer computes with its weights where masks do not reach.

    Keras lists its weights all the same.
    """
    return any(base.__name__ in FOREIGN for base in type(layer).__mro__)


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


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many zeros "same" padding adds before and after along one axis.

    Args:
        size: Of the input.
        kernel: Of the window, holes included.
        stride: From one output to the next.

    Example:
    >>> same_padding(224, 3, 2)
    (0, 1)
    """
    outputs = -(-size // stride)
    total = max(0, (outputs - 1) * stride + kernel - size)
    return total // 2, total - total // 2
