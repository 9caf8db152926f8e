"""Mixed precision is for training: files are written, and compared, in float32."""

from __future__ import annotations

import keras

from keras_tickets.backend.agreement import HALF, Reference
from keras_tickets.backend.copying import copy_state
from keras_tickets.backend.keras_private import sublayers
from keras_tickets.masks.stripping import pair_layers, rebuild


def in_float32(model: keras.Model) -> keras.Model:
    """Return a model that computes the same in float32.

    The variables of a mixed-precision model are float32 already; only the type of the
    computation changes. Quantized layers are left alone.

    Args:
        model: A plain model. It is not changed, since other threads may be using it.

    Returns:
        A copy, or `model` itself when no layer computes in half precision.

    Raises:
        ValueError: If the model computes in half precision and cannot be copied, or
            the copy computes something else, beyond all rounding.
    """
    if not computes_in_half(model):
        return model
    reference = Reference.of(model)
    copy = rebuild(model)
    for layer in filter(_is_half, sublayers(copy)):
        layer.dtype_policy = "float32"
    # Now, not before: what a layer computes from its state is in the policy's type.
    copy_state(pair_layers(model, copy))
    reference.check(copy, HALF)
    return copy


def computes_in_half(model: keras.Model) -> bool:
    """Return whether a layer of a model computes in half precision."""
    return any(map(_is_half, sublayers(model)))


def _is_half(layer: keras.Layer) -> bool:
    policy = layer.dtype_policy
    return policy.quantization_mode is None and policy.compute_dtype in (
        "float16",
        "bfloat16",
    )
