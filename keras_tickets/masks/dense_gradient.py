"""The dense gradient of a masked kernel, taken out of the compiled training step.

A trainable variable `g` that enters the effective kernel as a zero with the derivative
one has the gradient of the whole kernel, dead weights included. Keras
writes gradients straight into variables that have `overwrite_with_gradient`, before
it clips or scales any: after each step `g` holds the dense gradient of that step. No
second pass over the data, no train step of one's own, and the weights train bit-equal
to those of a ticket without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import AuxiliaryVariable
from keras_tickets.masks.flag import Owner


class Capture(AuxiliaryVariable):
    """Holds the dense gradient of one kernel, or a running average of it.

    Args:
        host: The layer that owns the variable.
        kernel: The kernel whose gradient it is.
        decay: The variable becomes `decay * g + (1 - decay) * gradient` in each
            step; with zero it is the gradient itself.
    """

    def __init__(self, host: Owner, kernel: Kernel, decay: float = 0.0) -> None:
        self.decay = decay
        self.variable = host.add_weight(
            shape=kernel.shape,
            initializer="zeros",
            dtype=kernel.variable.dtype,
            # Each replica has the gradient of its share of the loss.
            aggregation="sum",
            # All captures have one host, and on torch Keras keeps one variable for
            # each path: the gradients of the others would add up for ever.
            name=kernel.path.replace("/", "_") + "_gradient",
        )
        self.variable.overwrite_with_gradient = True

    def effective(self, value: Any, mask: Any) -> Any:
        """Return the masked kernel plus zeros with its gradient times `1 - decay`."""
        return ops.where(mask, value, 0) + self._zeros() * (1 - self.decay)

    def losses(self) -> Sequence[Any]:
        """Return a loss of zero whose gradient is `decay * g`."""
        if not self.decay:
            return ()
        held = ops.stop_gradient(self.variable.value)
        # A gradient that overflowed once must not stay in the average.
        held = ops.where(ops.isfinite(held), held, 0)
        return (self.decay * ops.sum(held * self._zeros()),)

    def _zeros(self) -> Any:
        # A copy, as TensorFlow refuses gradients of its own that read a variable,
        # which one of a MirroredStrategy is outside of a step.
        return ops.custom_gradient(_zero)(ops.copy(self.variable.value))


def _zero(value: Any) -> tuple[Any, Any]:
    """Return zeros, and the gradient of `value` for its own.

    Unlike `value - stop_gradient(value)` they are zero where `value` is not finite.
    """

    def gradient(*args: Any, upstream: Any = None) -> Any:
        return args[0] if upstream is None else upstream  # torch gives it by name

    return ops.zeros_like(value), gradient
