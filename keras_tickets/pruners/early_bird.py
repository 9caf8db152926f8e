"""Early-Bird: channels whose ranking settles in the first epochs."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from keras_tickets.backend import on_host
from keras_tickets.channels import batchnorm_scales
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import (
    ChannelScale,
    learned,
)
from keras_tickets.masks.masked_call import MaskSet
from keras_tickets.pruners import collapse
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.drawing import begun
from keras_tickets.pruners.mined import Mined
from keras_tickets.recipe.ranking import tie_order
from keras_tickets.recipe.schedules import Once
from keras_tickets.recipe.structures import Channel
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket


@registry.register
class EarlyBird(Mined):
    """Drops output channels by the scale of their BatchNorm, as soon as that is clear.

    The model trains, with an l1 penalty on the scales. After each epoch the channels
    of least `|gamma|` are noted; when the last `window` such masks differ from the
    newest in no more than a fraction `distance` of the channels, the ticket is drawn,
    and the rest of the run trains it. Only kernels whose outputs go straight into a
    BatchNorm are pruned.

    Args:
        sparsity: Fraction of the weights of those kernels that become zero, in [0, 1),
            to the nearest whole channel.
        penalty: Weight of the l1 norm of the scales.
        distance: How much of the channels may still change sides.
        window: How many masks are compared, the newest included.
        until: The fraction of the run after which the ticket is drawn at the latest,
            with a warning.
        structure: `"channel"`: nothing else has a scale to be ranked by.
        on_collapse: `"raise"` or `"warn"` when the ticket lets no signal pass.

    Raises:
        ValueError: On `wrap`, if no BatchNorm follows a prunable kernel.

    Example:
    >>> import keras_tickets as kt
    >>> kt.EarlyBird(0.5).window
    5

    Reference:
        You et al., "Drawing early-bird tickets: towards more efficient training of
        deep networks", 2020.
    """

    def __init__(
        self,
        sparsity: float = 0.5,
        penalty: float = 1e-4,
        distance: float = 0.1,
        window: int = 5,
        until: float = 0.5,
        structure: Any = "channel",
        on_collapse: str = "raise",
    ) -> None:
        if window < 2 or window != int(window):
            raise ValueError(
                f"window counts masks to compare, at least 2. Received: {window!r}."
            )
        if not 0.0 <= distance < 1.0:
            raise ValueError(f"distance must lie in [0, 1). Received: {distance!r}.")
        super().__init__(sparsity, "global", structure, Once(until), until, on_collapse)
        if not isinstance(self.structure, Channel):
            raise ValueError(
                "EarlyBird ranks whole output channels by the scale of their "
                f'BatchNorm: structure must be "channel". Received: {structure!r}. '
                "For other structures use kt.IMP or kt.GradualMagnitude."
            )
        self.penalty = penalty
        self.distance = distance
        self.window = int(window)

    def companion(
        self, ticket: Ticket, kernel: Kernel, position: int
    ) -> ChannelScale | None:
        """Return the scale of the kernel's channels, if it has one."""
        gamma = batchnorm_scales.scales(ticket.model, [kernel]).get(id(kernel.variable))
        if gamma is None:
            return None
        return ChannelScale(ticket, kernel, gamma, self.penalty)

    def hold(self, ticket: Ticket) -> None:
        """Add the masks of the last epochs."""
        super().hold(ticket)
        scales = learned(ticket.mask_set)
        if not scales:
            raise ValueError(
                "EarlyBird ranks channels by the scale of the BatchNorm after them, "
                f"but in {ticket.model.name!r} none with a scale comes straight "
                "after a prunable kernel. Expected a model such as Conv2D, "
                "BatchNormalization, Activation, built with the functional API."
            )
        total = sum(scale.variable.shape[0] for scale in scales)
        ticket.recent = ticket.add_weight(
            shape=(self.window, total),
            initializer="zeros",
            dtype="bool",
            trainable=False,
            name="recent",
        )
        ticket.noted = ticket.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="noted"
        )

    def found(self, ticket: Ticket, logs: dict) -> bool:
        """Note the mask of this epoch; return whether the last ones agree with it."""
        kept = np.concatenate(self._kept(ticket.mask_set))
        recent = np.concatenate([kept[None], on_host(ticket.recent.value)[:-1]])
        noted = int(on_host(ticket.noted.value)) + 1
        ticket.recent.assign(recent)
        ticket.noted.assign(noted)
        logs["mask_distance"] = max(distance(kept, old) for old in recent[1:])
        return noted >= self.window and logs["mask_distance"] <= self.distance

    def update(self, masks: MaskSet, sparsity: float, verbose: int = 0) -> Curve:
        """Drop the channels of least scale."""
        alive = masks.values()
        self.curve = begun(masks.kernels, alive, self.score)
        scaled = iter(self._kept(masks))
        kept = [
            mask & next(scaled) if masked.companion else mask
            for mask, masked in zip(alive, masks.masked, strict=True)
        ]
        collapse.check_flow(self._task.model, masks.kernels, alive, kept, self)
        masks.assign(kept)
        self.curve.add(kept, math.nan)
        return self.curve

    def settle(self, ticket: Ticket) -> None:
        """Warn if the channels had not settled."""
        recent = on_host(ticket.recent.value)
        far = max(distance(recent[0], old) for old in recent[1:])
        if int(on_host(ticket.noted.value)) < self.window or far > self.distance:
            warnings.warn(
                "EarlyBird drew its ticket at the end of its time "
                f"(until={self.until:g} of the run) before the last {self.window} "
                f"masks agreed: they differ in up to {far:.3g} of the channels, "
                f"distance={self.distance:g} was asked for. Train for more epochs, or "
                "allow for a larger distance.",
                stacklevel=2,
            )

    def _kept(self, masks: MaskSet) -> list[np.ndarray]:
        """Return which channels of each scaled kernel are kept."""
        scales = learned(masks)
        gammas = [np.abs(on_host(scale.variable.value)) for scale in scales]
        sizes = [
            np.full(len(gamma), scale.kernel.size // len(gamma))
            for gamma, scale in zip(gammas, scales, strict=True)
        ]
        ties = [tie_order(np.arange(len(gamma)), gamma.shape) for gamma in gammas]
        order = np.lexsort((-np.concatenate(ties), np.concatenate(gammas)))
        zeros = np.cumsum(np.concatenate(sizes)[order])
        wanted = self.sparsity * zeros[-1]
        number = int(np.argmin(np.abs(np.concatenate([[0], zeros]) - wanted)))
        kept = np.ones(len(order), bool)
        kept[order[:number]] = False
        return np.split(kept, np.cumsum([len(g) for g in gammas])[:-1])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the fraction of channels in which two masks differ.

    Example:
    >>> distance(np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1]))
    0.4
    """
    return float(np.mean(a != b))
