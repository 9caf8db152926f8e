"""Where the masks of a ticket stand, and what happens to them outside of `fit`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel
from keras_tickets.masks.masked_call import MaskedCall, MaskSet
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.masks.wrapped_layers import QUANTIZE_STRIPPED
from keras_tickets.ticket.bound_pruner import BoundPruner
from keras_tickets.ticket.last_word import Standing, Watch


class WatchedModel(keras.Model):
    """A model with masks, which tells when they are no more what its pruner left.

    A `Ticket` is one; it makes the attributes.
    """

    pruner: BoundPruner | None
    kernels: tuple[Kernel, ...]
    pruner_state: PrunerState
    _masked_call: MaskedCall
    _watch: Watch

    @property
    def mask_set(self) -> MaskSet:
        """The masks, as a pruner works on them."""
        keras_private.up_to_date(self)
        return self.pruner_state.masks

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The masks by display path, `True` = kept."""
        paths = [kernel.path for kernel in self.kernels]
        return dict(zip(paths, self.mask_set.values(), strict=True))

    @property
    def sparsity(self) -> float:
        """The fraction of the prunable weights that are zero."""
        return self.mask_set.count().sparsity

    @property
    def drawn(self) -> bool:
        """Whether a pruner has chosen the masks."""
        return self.mask_set.drawn

    @property
    def unfinished(self) -> bool:
        """Whether the search for the masks goes on, so that they will change."""
        return self.pruner_state.unfinished

    @property
    def on_target(self) -> bool:
        """Whether masks are what the pruner was asked for, and no search goes on."""
        return self.pruner is None or self.pruner.on_target(self)

    def _standing(self) -> Standing:
        return Standing(
            self.mask_set.count(),
            self.on_target,
            self.drawn or self.unfinished,
            self.unfinished,
            self.pruner is not None and self.pruner.drives(self),
            self.pruner is None or self.pruner.trains_ticket,
        )

    def _whose(self) -> str | None:
        if self.pruner is None:
            return None
        asked = f"asked for sparsity {self.pruner.sparsity:g}"
        return f"{self.name!r} ({type(self.pruner).__name__}, {asked})"

    def warn_if_undone(self) -> None:
        """Warn, once, if other masks were loaded or assigned that are off target.

        Looked at when the ticket is used, but not for training, since a run may go on
        from what was loaded; and when weights are loaded into one that was on target.
        """
        self._watch.check()

    def note_masks(self) -> None:
        """Take the masks as they are now for those that the pruner begins with."""
        self._watch.note()

    def set_weights(self, weights: Any) -> None:
        """Assign all weights, masks among them; see `Layer.set_weights`."""
        super().set_weights(weights)
        self._watch.after_loading()

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Load weights, masks among them; see `Model.load_weights`."""
        super().load_weights(*args, **kwargs)
        self._watch.after_loading()

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raise: what is quantized is the plain model.

        Raises:
            ValueError: In any case.
        """
        raise ValueError(
            f"{self.name!r} is a ticket: its masks act on kernels in floating point, "
            f"and quantize would replace these. {QUANTIZE_STRIPPED}; for a file, "
            'kt.export(ticket, path, precision="int8").'
        )

    def make_train_function(self, force: bool = False) -> Any:
        """Return the training step; see `Model.make_train_function`."""
        self._masked_call.refresh()
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        """Return the step of `evaluate`; see `Model.make_test_function`."""
        self._masked_call.refresh()
        self.warn_if_undone()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Return the step of `predict`; see `Model.make_predict_function`."""
        self._masked_call.refresh()
        self.warn_if_undone()
        return super().make_predict_function(force)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Save the weights; see `Model.save_weights`."""
        self._masked_call.refresh()
        self.warn_if_undone()
        super().save_weights(*args, **kwargs)
