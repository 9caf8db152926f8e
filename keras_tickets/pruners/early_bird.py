"""Early-Bird: channels whose ranking settles in the first epochs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_tickets._util import arguments
from keras_tickets.backend import on_host
from keras_tickets.channels import batchnorm_scales
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import ChannelScale, learned
from keras_tickets.masks.masked_call import MaskSet
from keras_tickets.pruners import collapse
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.drawing import begun
from keras_tickets.pruners.learned.base import LearnedMaskPruner, SearchState
from keras_tickets.recipe.ranking import tie_order
from keras_tickets.recipe.structures import Channel
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket


class EarlyBirdState(SearchState):
    """What a search holds, and which channels the last epochs would have kept.

    Args:
        ticket: What owns the variables.
        auxiliary: Returns the scale of a kernel's channels.
        window: How many epochs are compared.
    """

    def __init__(
        self,
        ticket: Ticket,
        auxiliary: Callable[[Any, Kernel, int], ChannelScale | None],
        window: int,
    ) -> None:
        super().__init__(ticket, auxiliary)
        total = sum(scale.variable.shape[0] for scale in learned(self.masks))
        self._recent = ticket.add_weight(
            shape=(window, total),
            initializer="zeros",
            dtype="bool",
            trainable=False,
            name="recent",
        )
        self._noted = ticket.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="noted"
        )

    @property
    def full(self) -> bool:
        """Whether as many epochs were noted as are compared."""
        return int(on_host(self._noted.value)) >= self._recent.shape[0]

    def note(self, kept: np.ndarray) -> None:
        """Note the channels that this epoch would keep, in place of the oldest."""
        older = on_host(self._recent.value)[:-1]
        self._recent.assign(np.concatenate([kept[None], older]))
        self._noted.assign(int(on_host(self._noted.value)) + 1)

    def furthest(self) -> float:
        """Return by how much the newest epoch differs from the others at most."""
        newest, *older = on_host(self._recent.value)
        return max(distance(newest, one) for one in older)


@registry.register
class EarlyBird(LearnedMaskPruner):
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

    logged = ("sparsity", "mask_distance")
    state_kind = EarlyBirdState
    _state: EarlyBirdState

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
        self.window = arguments.whole("window counts masks to compare and", window, 2)
        self.distance = arguments.number("distance", distance, "[0, 1)")
        super().__init__(
            sparsity, structure=structure, until=until, on_collapse=on_collapse
        )
        if not isinstance(self.structure, Channel):
            raise ValueError(
                "EarlyBird ranks whole output channels by the scale of their "
                f'BatchNorm: structure must be "channel". Received: {structure!r}. '
                "For other structures use kt.IMP or kt.GradualMagnitude."
            )
        self.penalty = arguments.number("penalty", penalty, "[0, inf)")

    @property
    def settles_apart(self) -> bool:
        """Whether settling makes another network: it drops what has trained so far."""
        return True

    def build(self, ticket: Ticket) -> EarlyBirdState:
        """Return masks, scales, and the masks of the last epochs."""
        self.check_ticket(ticket)
        return EarlyBirdState(ticket, self.auxiliary, self.window)

    def check_ticket(self, ticket: Ticket) -> None:
        """Raise if no kernel has a scale to be ranked by."""
        super().check_ticket(ticket)
        if not batchnorm_scales.scales(ticket.model, ticket.kernels):
            raise ValueError(
                "EarlyBird ranks channels by the scale of the BatchNorm after them, "
                f"but in {ticket.model.name!r} none with a scale comes straight "
                "after a prunable kernel. Expected a model such as Conv2D, "
                "BatchNormalization, Activation, built with the functional API."
            )

    def auxiliary(
        self, state: SearchState, kernel: Kernel, position: int
    ) -> ChannelScale | None:
        """Return the scale of the kernel's channels, if it has one."""
        scales = batchnorm_scales.scales(state.ticket.model, [kernel])
        gamma = scales.get(id(kernel.variable))
        if gamma is None:
            return None
        return ChannelScale(state, kernel, gamma, self.penalty)

    def observe(self, ticket: Ticket, logs: dict) -> None:
        """Note the mask of this epoch, and by how much the last ones differ from it."""
        self._state.note(np.concatenate(self._kept(ticket.mask_set)))
        logs["mask_distance"] = self._state.furthest()

    def should_stop(self, ticket: Ticket, logs: dict) -> bool:
        """Return whether the masks of the last epochs agree."""
        return self._state.full and self._state.furthest() <= self.distance

    def update(self, masks: MaskSet, sparsity: float, verbose: int = 0) -> Curve:
        """Drop the channels of least scale."""
        before = masks.values()
        self.curve = begun(masks.kernels, before, self.score)
        scaled = iter(self._kept(masks))
        kept = [
            mask & next(scaled) if masked.auxiliary else mask
            for mask, masked in zip(before, masks.masked, strict=True)
        ]
        collapse.check_flow(self._task.model, masks.kernels, before, kept, self)
        masks.assign(kept)
        self.curve.add(kept, math.nan)
        return self.curve

    def finalize(self, ticket: Ticket) -> None:
        """Warn if the channels had not settled."""
        far = self._state.furthest()
        if not self._state.full or far > self.distance:
            warnings.warn(
                "EarlyBird drew its ticket at the end of its time "
                f"(until={self.until:g} of the run) before the last {self.window} "
                f"masks agreed: they differ in up to {far:.3g} of the channels, "
                f"distance={self.distance:g} was asked for. Train for more epochs, or "
                "allow for a larger distance.",
                stacklevel=2,
            )

    def _met(self, masks: MaskSet) -> bool:
        """Return whether the scaled kernels have the zeros asked for, to a channel."""
        scaled = [m.kernel for m in masks.masked if m.auxiliary]
        wanted = self.sparsity * sum(kernel.size for kernel in scaled)
        largest = max(own.distinct_sizes[0] for own in self.weight_groups(scaled))
        return abs(masks.count().zeros - wanted) < largest

    def _without_search(self) -> float:
        """Return the distance between masks that do not move."""
        return 0.0

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
