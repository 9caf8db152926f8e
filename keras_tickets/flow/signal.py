"""Signals: non-negative tensors of any magnitude, in float32 without overflow.

A signal is `value * 2**exponent` with the largest entry of `value` near one. Through
a deep network the flow grows or falls by hundreds of orders of magnitude (R = 4e72 on
ResNet-50); the exponent takes all of that, so that values, and gradients with them,
stay where float32 is accurate. Scaling by a power of two rounds nothing, so rankings
are those of unscaled arithmetic.

The exponents are constants to the gradient: every path to the output is multiplied
by the same power of two, so gradients are right up to one common factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras import ops


@dataclass(frozen=True, eq=False)
class Signal:
    """The tensor `value * 2**exponent`.

    Args:
        value: A non-negative tensor.
        exponent: A scalar tensor, a whole number.
        always: Whether the network's own tensor here is positive even without any
            input, as the output of a sigmoid is.
        layers: How many layers with weights it passed since it was rescaled.
    """

    value: Any
    exponent: Any
    always: bool = False
    layers: int = 0

    def of(self, value: Any, **changes: Any) -> Signal:
        """Return this signal with another value."""
        return replace(self, value=value, **changes)


def power_of_two(exponent: Any) -> Any:
    """Return `2**exponent`, in the precision of the exponent."""
    return ops.power(ops.full_like(exponent, 2), exponent)


FEW = 4
"""Through so many layers the largest entry stays far inside float32's range."""


def pass_layer(signal: Signal) -> Signal:
    """Count a layer with weights; rescale after a few, since it takes time."""
    passed = replace(signal, layers=signal.layers + 1)
    return passed if passed.layers < FEW else rescale(passed)


def rescale(signal: Signal) -> Signal:
    """Move the magnitude of the largest entry from the value into the exponent."""
    largest = ops.max(ops.stop_gradient(signal.value))
    shift = ops.floor(ops.log2(ops.where(largest > 0, largest, 1)))
    shift = ops.stop_gradient(shift)
    return signal.of(
        signal.value * power_of_two(-shift),
        exponent=signal.exponent + shift,
        layers=0,
    )


def align(signals: Sequence[Signal]) -> tuple[list[Any], Any]:
    """Return the values of all signals at one exponent, and that exponent."""
    # A signal of zero must not set the scale for the others.
    reach = [
        ops.where(ops.max(ops.stop_gradient(s.value)) > 0, s.exponent, -1e30)
        for s in signals
    ]
    highest = ops.stop_gradient(ops.max(ops.stack(reach)))
    highest = ops.where(highest > -1e30, highest, 0)
    values = [
        s.value * power_of_two(ops.minimum(ops.stop_gradient(s.exponent) - highest, 0))
        for s in signals
    ]
    return values, highest


def root(signal: Signal, degree: int) -> Signal:
    """Return the `degree`-th root of a signal, with gradient zero where it is zero."""
    rest = ops.mod(signal.exponent, degree)
    value = signal.value * power_of_two(rest)
    positive = value > 0
    safe = ops.where(positive, value, 1)
    value = ops.where(positive, ops.power(safe, 1 / degree), 0)
    return signal.of(value, exponent=(signal.exponent - rest) / degree)
