"""What may not happen to a layer whose kernel is masked, once it is wrapped.

A mask acts on the variable that was found when the layer was wrapped. A layer that
computes with another one since, or adds to it what no mask covers, would leave the
masks without effect, and every count of zeros wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras_tickets._util.layer_traits import has_lora, is_quantized
from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel

QUANTIZE_STRIPPED = (
    "Quantize the plain model: plain = ticket.strip(), then plain.quantize(...)"
)


def check_as_wrapped(kernels: Sequence[Kernel]) -> None:
    """Raise if a layer computes with something else than its masked kernel.

    Raises:
        ValueError: With the layer, what was done to it, and the way out.
    """
    for kernel in kernels:
        if why := _what_changed(kernel):
            raise ValueError(f"Layer {kernel.layer.name!r} {why}")


def _what_changed(kernel: Kernel) -> str | None:
    layer = kernel.layer
    if is_quantized(layer):
        return (
            f"was quantized ({layer.quantization_mode}) after it was wrapped, so the "
            f"mask of {kernel.path!r} has no effect any more. {QUANTIZE_STRIPPED}. "
            "This model has lost its mask: load it from a checkpoint, or build it anew."
        )
    if has_lora(layer):
        return (
            f"got LoRA weights (enable_lora) after it was wrapped. Their product is "
            f"added to {kernel.path!r} and is dense, so no zero of the mask would be "
            "left. Call enable_lora before kt.wrap, which leaves such layers alone, or "
            "only on layers that are not masked (skip=)."
        )
    held = keras_private.own_variables(layer)
    if all(variable is not kernel.variable for variable in held):
        return (
            f"has another variable in place of {kernel.path!r} since it was wrapped, "
            "so the mask has no effect any more. Wrap the model after it was changed."
        )
    return None
