"""Auxiliary variables: what enters the forward pass of a ticket beside a kernel.

A pruner that needs more in the ticket than masks (a captured gradient, trainable
scores) has an auxiliary variable for each kernel. They are made with the ticket,
before any optimizer is built, so that checkpoints hold them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras


class AuxiliaryVariable(ABC):
    """A variable beside one kernel, and how it enters the forward pass."""

    variable: keras.Variable

    replaces_values = False
    """Whether the model may compute with other values than the stored ones, where the
    mask keeps them."""

    @abstractmethod
    def effective(self, value: Any, mask: Any) -> Any:
        """Return the kernel that the model computes with.

        Args:
            value: The stored kernel.
            mask: `True` = kept.
        """

    def losses(self) -> Sequence[Any]:
        """Return what is added to the loss of each call."""
        return ()
