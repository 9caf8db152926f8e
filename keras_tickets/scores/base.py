"""The contract of a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_tickets._util.registry import Configurable, Registry
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import AuxiliaryVariable


@dataclass(frozen=True)
class Task:
    """What a score may look at.

    Args:
        model: The model that runs; its kernels are given values by the score.
        kernels: The kernels to score.
        loss: The loss that the model was compiled with, `loss(y, y_pred, weights)`,
            or `None`.
        auxiliary: What the ticket holds beside each kernel.
    """

    model: keras.Model
    kernels: tuple[Kernel, ...]
    loss: Callable[..., Any] | None = None
    auxiliary: Sequence[AuxiliaryVariable | None] = ()


@dataclass(frozen=True)
class Scored:
    """What a score says of the weights under some masks.

    Args:
        values: For each kernel, in its shape, the score of each weight; tensors or
            arrays.
        measure: What the score was taken of (the logarithm of the flow, the loss).
        collapsed: Whether no signal passes the network any more.
    """

    values: Sequence[Any]
    measure: float = float("nan")
    collapsed: bool = False


Scorer: TypeAlias = Callable[[Sequence[Any]], Scored]


class Score(Configurable, ABC):
    """What gives each weight a score; the highest are kept."""

    measure = ""
    """What `Scored.measure` is, as it is shown to people."""

    detects_collapse = False
    """Whether `Scored.collapsed` tells that a draw has cut the network."""

    @abstractmethod
    def prepare(self, task: Task) -> Scorer:
        """Return the function from masks to scores, compiled once for a whole draw."""


class StaticScore(Score):
    """A score that depends on nothing but the stored weights."""

    @abstractmethod
    def __call__(self, kernels: Sequence[Kernel]) -> list[np.ndarray]:
        """Return one array of scores for each kernel, in its shape."""

    def prepare(self, task: Task) -> Scorer:
        """Return a function that reads the weights anew at each call."""
        return lambda masks: Scored(self(task.kernels))


registry = Registry("score", Score)


def weights(kernels: Sequence[Kernel]) -> list[Any]:
    """Return the stored values as tensors, in float32 or better."""
    tensors = [ops.stop_gradient(kernel.variable.value) for kernel in kernels]
    return [
        tensor if kernel.variable.dtype == "float64" else ops.cast(tensor, "float32")
        for kernel, tensor in zip(kernels, tensors, strict=True)
    ]


def masked(tensors: Sequence[Any], masks: Sequence[Any]) -> list[Any]:
    """Return `where(mask, tensor, 0)` for each tensor."""
    return [ops.where(m, t, 0) for t, m in zip(tensors, masks, strict=True)]
