"""Auxiliary variables that are trained to tell which weights to keep.

Each enters the forward pass in its own way while the search for the ticket goes on,
and not at all before and after. Gradients through a rounding are those of the identity
(the straight-through estimator).
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets.backend import on_host
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import AuxiliaryVariable
from keras_tickets.masks.masked_call import MaskSet
from keras_tickets.masks.regrowth import magnitude

PENALTIES = {"l1": lambda x: ops.sum(ops.abs(x)), "l2": lambda x: ops.sum(x * x)}


def straight_through(rounded: Any, smooth: Any) -> Any:
    """Return `rounded`, with the gradient of `smooth`."""
    return smooth + ops.stop_gradient(rounded - smooth)


@keras.saving.register_keras_serializable(package="keras_tickets")
class UnitInterval(keras.constraints.Constraint):
    """Projects onto [0, 1]."""

    def __call__(self, w: Any) -> Any:
        """Return `w`, clipped."""
        return ops.clip(w, 0.0, 1.0)


class LearnedMask(AuxiliaryVariable):
    """A trainable variable beside a kernel that says what each weight is worth.

    Args:
        state: Whose ticket owns the variable; its flag `searching` says when it enters
            the forward pass.
        kernel: The kernel.
        initial: What the variable starts as.
        penalty: Weight of the regularisation of the variable.
        norm: `"l1"` or `"l2"` (the sum of squares).
        constraint: What the optimizer keeps the variable to.
    """

    replaces_values = True

    def __init__(
        self,
        state: Any,
        kernel: Kernel,
        initial: np.ndarray,
        penalty: float = 0.0,
        norm: str = "l2",
        constraint: Any = None,
    ) -> None:
        self.kernel = kernel
        self.searching = state.searching
        self.penalty = penalty
        self.norm = norm
        self.variable = state.ticket.add_weight(
            shape=initial.shape,
            initializer="zeros",
            dtype=kernel.variable.dtype,
            constraint=constraint,
            name=self.name_of(kernel),
        )
        self.variable.assign(initial)

    def name_of(self, kernel: Kernel) -> str:
        """Return the name of the variable; torch asks that it is unique."""
        return kernel.path.replace("/", "_") + "_score"

    @abstractmethod
    def during_search(self, value: Any) -> Any:
        """Return the kernel of the forward pass while the search goes on."""

    @abstractmethod
    def scores(self) -> np.ndarray:
        """Return what each weight is worth; higher is worth keeping."""

    def effective(self, value: Any, mask: Any) -> Any:
        """Return the masked kernel, as the search sees it or as it is."""
        kept = ops.where(self.searching.value, self.during_search(value), value)
        return ops.where(mask, kept, 0)

    def losses(self) -> Sequence[Any]:
        """Return the regularisation of the variable."""
        if not self.penalty:
            return ()
        value = self.variable.value
        if self.variable.dtype in ("float16", "bfloat16"):
            value = ops.cast(value, "float32")  # a sum over 65504 is infinite in half
        loss = self.penalty * PENALTIES[self.norm](value)
        return (ops.where(self.searching.value, loss, ops.zeros_like(loss)),)


def learned(masks: MaskSet) -> list[Any]:
    """Return the learned masks, in the order of the kernels."""
    held = [m.auxiliary for m in masks.masked]
    return [auxiliary for auxiliary in held if isinstance(auxiliary, LearnedMask)]


class Rounded(LearnedMask):
    """Gem-Miner: frozen weights times scores in [0, 1] rounded to 0 or 1."""

    def during_search(self, value: Any) -> Any:
        """Return `w * 1[p > 0.5]`; the gradient for `p` is `dL/dw_eff * w`."""
        p = self.variable.value
        kept = ops.cast(p > 0.5, p.dtype)
        return ops.stop_gradient(value) * straight_through(kept, p)

    def scores(self) -> np.ndarray:
        """Return the scores."""
        return on_host(self.variable.value)


class Popup(LearnedMask):
    """Edge-popup: frozen weights, those of highest `|score|` in each forward pass.

    `rivals` and `budget` say which scores share how many weights; the pruner sets
    them when all are there.
    """

    rivals: Sequence[Popup]
    budget: int

    def during_search(self, value: Any) -> Any:
        """Return `w * 1[|s| in the top k]`; `|s|` has the gradient `dL/dw_eff * w`."""
        size = ops.abs(self.variable.value)
        kept = ops.cast(size >= self._threshold(), size.dtype)
        return ops.stop_gradient(value) * straight_through(kept, size)

    def _threshold(self) -> Any:
        if not self.budget:
            return float("inf")
        sizes = [ops.reshape(ops.abs(r.variable.value), (-1,)) for r in self.rivals]
        # What is compiled once is computed once, though each rival asks.
        return ops.top_k(ops.concatenate(sizes), self.budget)[0][-1]

    def scores(self) -> np.ndarray:
        """Return `|s|`."""
        return magnitude(self.variable)


class Soft(LearnedMask):
    """ESPN: weights times a soft mask, trained together with them."""

    def during_search(self, value: Any) -> Any:
        """Return `w * c`."""
        return value * self.variable.value

    def scores(self) -> np.ndarray:
        """Return `|c|`."""
        return magnitude(self.variable)


class SoftThreshold(LearnedMask):
    """STR: weights shrunk by a threshold `sigmoid(s)`, one for each kernel."""

    def name_of(self, kernel: Kernel) -> str:
        """Return a name in which no pattern for kernels is found.

        A `keras.distribution.LayoutMap` goes by paths of variables. What it says of
        the axes of a kernel does not fit a number.
        """
        digest = hashlib.sha256(kernel.path.encode()).hexdigest()
        return f"threshold_{digest[:16]}"

    def during_search(self, value: Any) -> Any:
        """Return `sign(w) * relu(|w| - sigmoid(s))`."""
        excess = ops.abs(value) - ops.sigmoid(self.variable.value)
        return ops.sign(value) * ops.relu(excess)

    def scores(self) -> np.ndarray:
        """Return `|w| - sigmoid(s)`: above zero is what the threshold leaves."""
        threshold = ops.sigmoid(self.variable.value)  # as the forward pass rounds it
        size = magnitude(self.kernel.variable)
        return size - on_host(ops.cast(threshold, str(size.dtype)))


class ChannelScale(LearnedMask):
    """Early-Bird: the BatchNorm scale of a kernel's output channels, held small.

    Args:
        state: Its flag `searching` says when the penalty counts.
        kernel: The kernel.
        gamma: The scale, a variable of the model.
        penalty: Weight of the l1 norm of the scale.
    """

    replaces_values = False

    def __init__(
        self, state: Any, kernel: Kernel, gamma: keras.Variable, penalty: float
    ) -> None:
        self.kernel = kernel
        self.searching = state.searching
        self.penalty = penalty
        self.norm = "l1"
        self.variable = gamma

    def during_search(self, value: Any) -> Any:
        """Return the kernel as it is."""
        return value

    def scores(self) -> np.ndarray:
        """Return `|gamma|` of the channel that each weight belongs to."""
        return np.broadcast_to(magnitude(self.variable), self.kernel.shape)
