"""Why a variable is left alone: a table of reasons."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from keras_tickets._util.layer_traits import (
    has_lora,
    is_bias,
    is_foreign,
    is_quantized,
)
from keras_tickets.kernels.kernel import Kernel, is_depthwise


@dataclass(frozen=True)
class Exclusion:
    """One reason to leave a variable alone.

    Args:
        reason: What the report says.
        matches: Whether the reason holds for a kernel.
        on_request: Whether naming the variable or its layer in `only=` prunes it all
            the same; if not, naming it raises.
        by_layer: Whether naming the layer is enough for that.
        multiplies: Whether such a variable takes part in products of the layer with its
            input; others are added or looked up.
    """

    reason: str
    matches: Callable[[Kernel], bool]
    on_request: bool = False
    by_layer: bool = True
    multiplies: bool = True


def _name(pattern: str) -> Callable[[Kernel], bool]:
    return lambda kernel: re.search(pattern, kernel.variable.name) is not None


def _layer(pattern: str) -> Callable[[Kernel], bool]:
    return lambda kernel: re.search(pattern, type(kernel.layer).__name__) is not None


def _either(*tests: Callable[[Kernel], bool]) -> Callable[[Kernel], bool]:
    return lambda kernel: any(test(kernel) for test in tests)


UNREACHED = Exclusion(
    "held by a TorchModuleWrapper or a TFSMLayer, whose own call masks do not reach",
    lambda kernel: is_foreign(kernel.layer),
)
"""Weights that Keras lists and does not compute with."""

EXCLUSIONS: list[Exclusion] = [
    UNREACHED,
    Exclusion(
        "quantized: prune before quantizing",
        lambda kernel: is_quantized(kernel.layer),
    ),
    Exclusion(
        "LoRA is enabled on the layer: prune before enable_lora",
        lambda kernel: has_lora(kernel.layer),
    ),
    Exclusion("frozen: trainable is False", lambda kernel: not kernel.trainable),
    Exclusion(
        "not a floating-point variable",
        lambda kernel: "float" not in str(kernel.variable.dtype),
    ),
    Exclusion(
        "rewritten by SpectralNormalization in every step",
        lambda kernel: kernel.rewritten,
    ),
    Exclusion(
        "bias",
        lambda kernel: is_bias(kernel.variable.name),
        on_request=True,
        by_layer=False,
        multiplies=False,
    ),
    Exclusion(
        "normalization",
        _either(_layer(r"Normalization$"), _name(r"^(gamma|beta)$")),
        on_request=True,
        multiplies=False,
    ),
    Exclusion(
        "activation parameter",
        _layer(r"^PReLU$"),
        on_request=True,
        multiplies=False,
    ),
    Exclusion(
        "embedding or position table",
        _either(
            _layer(r"Embedding$"),
            _name(r"(^|_)(pos|position|positional)(_|$)|embeddings?$|^(cls|class)_tok"),
        ),
        on_request=True,
        multiplies=False,
    ),
    Exclusion("depthwise kernel", is_depthwise, on_request=True),
]
"""Why a variable is left alone, first match wins. Append a row to extend it."""


def why_not(kernel: Kernel) -> Exclusion | None:
    """Return the first exclusion that holds for `kernel`, or `None`."""
    return next((row for row in EXCLUSIONS if row.matches(kernel)), None)
