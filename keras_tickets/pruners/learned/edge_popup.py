"""Edge-popup: frozen weights, the best of them in every forward pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import Popup, learned
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.learned.base import SearchState
from keras_tickets.pruners.learned.supermask import Supermask
from keras_tickets.recipe.allocation import round_shares
from keras_tickets.ticket.ticket import Ticket


@registry.register
class EdgePopup(Supermask):
    """Finds a subnetwork of frozen random weights, then trains its weights.

    Each forward pass uses the weights of highest `|score|`, as many as the sparsity
    leaves; scores follow the gradient straight through that choice.

    Args:
        sparsity: Fraction of the prunable weights that are zero, in [0, 1).
        allocation: `"uniform"` (the paper's: each kernel by itself), `"global"` (one
            threshold for all), or any other.
        until: The fraction of the run that the search takes; 1.0 only searches.
        initial: `"signed_constant"` or `"model"`; see `GemMiner`.
        optimizer: What moves the scores; SGD with rate 0.1 and momentum 0.9 by
            default. The rate falls along a cosine during the search.
        structure: What is kept together, once the ticket settles.
        seed: Integer that fixes the first scores, on every backend alike.
        on_collapse: `"raise"` or `"warn"` when the ticket lets no signal pass.
        scale_fan: Whether the weights are multiplied by `sqrt(1 / k)` before the
            search, with `k` the fraction that is kept, so that signals keep their
            variance: `sqrt(2 / (k fan_in))` for signed constants. `k` is that of the
            kernel, or of all that share a budget.

    Deviations from the authors' code (allenai/hidden-networks):

    - Its option `scale_fan` multiplies the fan by one less its `prune_rate`, which is
      the fraction kept, so it has `sqrt(1 / (1 - k))`; this is the paper's
      `sqrt(1 / k)`. At `k = 1/2` they are the same.
    - It keeps `n - int((1 - k) n)` weights of each layer; here the budgets sum to the
      exact count of the model.
    - Its scores weigh in by `|score|` as here; weights train after the search here,
      which the paper does not do (`until=1.0` only searches), and biases and BatchNorm
      are left as the model has them.

    Example:
    >>> import keras_tickets as kt
    >>> kt.EdgePopup(0.5, allocation="global", seed=1).allocation
    Global()

    Reference:
        Ramanujan et al., "What's hidden in a randomly weighted neural network?", 2020.
    """

    def __init__(
        self,
        sparsity: float = 0.5,
        allocation: Any = "uniform",
        until: float = 0.5,
        initial: str = "signed_constant",
        optimizer: Any = None,
        structure: Any = "unstructured",
        seed: int | None = None,
        on_collapse: str = "raise",
        scale_fan: bool = False,
    ) -> None:
        self.scale_fan = arguments.switch("scale_fan", scale_fan)
        super().__init__(
            sparsity,
            allocation=allocation,
            structure=structure,
            until=until,
            initial=initial,
            optimizer=optimizer,
            seed=seed,
            on_collapse=on_collapse,
        )

    def auxiliary(self, state: SearchState, kernel: Kernel, position: int) -> Popup:
        """Return scores as Kaiming draws weights: uniform up to `1 / sqrt(fan_in)`."""
        rng = np.random.default_rng((self.seed, position))
        fan_in = kernel.size // kernel.extent(kernel.view.outputs)
        bound = 1 / np.sqrt(fan_in)
        return Popup(state, kernel, rng.uniform(-bound, bound, kernel.shape))

    def build(self, ticket: Ticket) -> SearchState:
        """Return a state whose scores know who competes with them for which budget."""
        state = super().build(ticket)
        popups = learned(state.masks)
        for group in self.groups(ticket.kernels, self.sparsity):
            members = [popups[i] for i in group.members]
            sizes = [popup.kernel.size for popup in members]
            if group.shares is None:
                for popup in members:
                    popup.rivals, popup.budget = members, group.keep
                continue
            budgets = round_shares(group.shares, group.keep, sizes)
            for popup, budget in zip(members, budgets, strict=True):
                popup.rivals, popup.budget = [popup], int(budget)
        return state

    def start_search(self, ticket: Ticket) -> None:
        """Give the weights their magnitudes, scaled to what is kept if so."""
        super().start_search(ticket)
        if not self.scale_fan:
            return
        for popup in learned(ticket.mask_set):
            kept = popup.budget / sum(rival.kernel.size for rival in popup.rivals)
            weight = popup.kernel.variable
            if kept:  # of a kernel without a budget nothing is seen
                weight.assign(weight.value / math.sqrt(kept))
