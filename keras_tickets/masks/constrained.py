"""Constraints of kernels that are masked.

An optimizer applies a constraint to the stored kernel, where dead weights still stand
and would count in a norm. So they are set to zero there; what a slot of the optimizer
still moves them by is taken back at the end of each epoch, when the kernel is
projected once more, as the forward pass sees it.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_tickets.backend import on_host
from keras_tickets.masks.masked_call import MaskedKernel

TOLERANCE = 1e-3


class ConstrainedKernels:
    """The kernels among some that have a constraint of their own.

    Args:
        masked: Kernels with their masks.
    """

    def __init__(self, masked: Iterable[MaskedKernel]) -> None:
        self._masked = [m for m in masked if m.kernel.variable.constraint is not None]

    def __bool__(self) -> bool:
        return bool(self._masked)

    def zero_dead(self) -> None:
        """Let dead weights count for nothing."""
        for m in self._masked:
            m.kernel.variable.assign(_alive(m, m.kernel.variable.value))

    def project(self) -> None:
        """Apply each constraint to the kernel as the forward pass sees it."""
        for m in self._masked:
            if m.kernel.variable.trainable:
                m.kernel.variable.assign(_alive(m, _constrained(m)))

    def violated(self) -> list[tuple[str, str]]:
        """Return path and constraint of the kernels for which it cannot hold.

        Their mask takes weights away that the constraint would put back.
        """
        found = []
        for m in self._masked:
            value = _alive(m, m.kernel.variable.value)
            off = ops.abs(_constrained(m) - value)
            scale = float(ops.max(ops.abs(value)))
            if float(np.max(on_host(off), initial=0.0)) > TOLERANCE * scale:
                name = type(m.kernel.variable.constraint).__name__
                found.append((m.kernel.path, name))
        return found


def _alive(masked: MaskedKernel, value: keras.KerasTensor) -> keras.KerasTensor:
    return ops.where(masked.mask.value, value, 0)


def _constrained(masked: MaskedKernel) -> keras.KerasTensor:
    variable = masked.kernel.variable
    return variable.constraint(_alive(masked, variable.value))
