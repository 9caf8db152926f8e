"""What the pruners share that look at data once, before training."""

from __future__ import annotations

from typing import Any

from keras_tickets._util.registry import Configurable


class WithData(Configurable):
    """For a pruner whose score asks a loss on data; its config leaves the data out."""

    unsaved = ("data",)
    score: Any  # a LossScore

    @property
    def data(self) -> Any:
        """The data that the score asks."""
        return self.score.data

    @property
    def loss(self) -> Any:
        """The loss, or `None` for the one of `compile`."""
        return self.score.loss

    @property
    def batch_size(self) -> int:
        """How many samples of arrays are run at a time."""
        return self.score.batch_size
