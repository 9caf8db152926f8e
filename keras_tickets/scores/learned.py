"""Scores that were learned while the model trained."""

from __future__ import annotations

from keras_tickets.masks.learned_masks import LearnedMask
from keras_tickets.scores.base import Score, Scored, Scorer, Task, registry


@registry.register
class Learned(Score):
    """What the ticket has learned of each weight, in auxiliary variables.

    Only for a pruner whose ticket holds scores: `kt.GemMiner`, `kt.EdgePopup`,
    `kt.ESPN`, `kt.STR`.
    """

    def prepare(self, task: Task) -> Scorer:
        """Return a function that reads the scores anew at each call."""
        held = [mask for mask in task.auxiliary if isinstance(mask, LearnedMask)]
        if len(held) < len(task.kernels):
            raise ValueError(
                f"Learned scores were asked for, but {task.model.name!r} holds none. "
                "Expected a ticket that a pruner was bound to which learns them: "
                "ticket = kt.wrap(model, kt.GemMiner(...)), then fit the ticket."
            )
        return lambda masks: Scored([mask.scores() for mask in held])
