"""Optimizers that would divide by zero at weights that never have a gradient.

A dead weight has a gradient of exactly zero, in each step. An optimizer that divides
by statistics of past gradients stands that only with something added to them, and
Adafactor with more of it: it multiplies the statistics of a row and of a column, and
the product of two that are nothing but its epsilon is zero in float32. One such weight
makes the whole kernel NaN in the next step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_tickets.backend import on_host
from keras_tickets.kernels import Kernel

LEAST = {"epsilon_1": 1e-15, "epsilon": 1e-30, "initial_accumulator_value": 1e-30}
"""The least value of each argument at which zero divided by it is zero in float32.

`epsilon_1` is Adafactor's, and enters as a square. Of several arguments the first that
an optimizer has: what accumulators start with is Ftrl's only guard, and not Adagrad's.
"""


def keep_finite(optimizer: Any, weights: Sequence[keras.Variable]) -> None:
    """Raise an optimizer's epsilon where a dead weight would become NaN; say so.

    Args:
        optimizer: What trains a model with masks; `None` for none.
        weights: What it trains.

    Raises:
        ValueError: If the weights are float16, in which there is no such epsilon.
    """
    for part in _parts(optimizer, weights):
        argument = next((one for one in LEAST if hasattr(part, one)), None)
        if argument is None:
            continue
        value, least = getattr(part, argument), LEAST[argument]
        name = type(part).__name__
        if not isinstance(value, int | float) or value >= least:
            continue
        if any(weight.dtype == "float16" for weight in weights):
            raise ValueError(
                f"{name} with {argument}={value:g} makes NaN of the weights that masks "
                "hold at zero, and float16 has no number that is small and prevents "
                "it. Compile with another optimizer, such as Adam, or use the dtype "
                "policy mixed_float16, whose weights are float32."
            )
        setattr(part, argument, least)
        warnings.warn(
            f"{name} with {argument}={value:g} makes NaN of the weights that masks "
            "hold at zero, as their gradients are all zero and it divides by what "
            f"these sum up to. It has {argument}={least:g} now, which is too little "
            "to change how the other weights train. To choose it yourself, pass "
            f"{name}(..., {argument}={least:g}) or more.",
            stacklevel=3,
        )


def _parts(optimizer: Any, weights: Sequence[keras.Variable]) -> Iterator[Any]:
    """Yield the optimizers that move weights, however they are wrapped."""
    if optimizer is None:
        return
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inside = [optimizer.inner_optimizer]
    elif hasattr(optimizer, "optimizers"):  # several, known once it is built
        if not optimizer.built:
            optimizer.build(list(weights))
        inside = list(optimizer.optimizers)
    else:  # the two of a `TwoPhaseOptimizer`
        found = [getattr(optimizer, part, None) for part in ("scores", "weights")]
        inside = [one for one in found if isinstance(one, keras.optimizers.Optimizer)]
    if not inside:
        yield optimizer
    for one in inside:
        yield from _parts(one, weights)


def warn_of_nan(kernels: Sequence[Kernel]) -> None:
    """Warn if weights that were trained are no numbers, masked or not.

    A loss does not show it where masks hide them, or a ReLU does.
    """
    bad = [k.path for k in kernels if np.isnan(on_host(k.variable.value)).any()]
    if bad:
        warnings.warn(
            f"Weights of {', '.join(bad)} are NaN after training. Either it diverged "
            "(lower the learning rate), or the optimizer divides by zero at weights "
            "whose gradients are all zero, as those of masked weights are: give it an "
            "epsilon, or use another, such as Adam.",
            stacklevel=3,
        )
