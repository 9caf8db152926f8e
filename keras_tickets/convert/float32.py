"""Mixed precision is for training: files are written, and compared, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_tickets.backend.keras_private import sublayers


@contextlib.contextmanager
def float32_compute(model: keras.Model) -> Iterator[None]:
    """Lets a mixed-precision model compute in float32 within the block.

    Its variables are float32 already; only the type of the computation changes.
    Quantised layers are left alone.

    Args:
        model: The model; its own policies come back after the block.
    """
    before = [
        (layer, layer.dtype_policy)
        for layer in sublayers(model)
        if _is_half(layer.dtype_policy)
    ]
    for layer, _ in before:
        layer.dtype_policy = "float32"
    try:
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _is_half(policy: keras.DTypePolicy) -> bool:
    return policy.quantization_mode is None and policy.compute_dtype in (
        "float16",
        "bfloat16",
    )
