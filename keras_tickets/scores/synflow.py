"""Synaptic flow: what a weight carries of all that flows from input to output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_tickets import backend
from keras_tickets.flow import Network
from keras_tickets.scores.base import (
    Score,
    Scored,
    Scorer,
    Task,
    masked,
    registry,
    weights,
)


@registry.register
class SynFlow(Score):
    """`S = theta * dR/dtheta` with `R = 1' |W_L| ... |W_1| 1`.

    Needs no data: the input is all ones, weights have their absolute values,
    activations are linear; see `keras_tickets.flow` for what each layer becomes. The
    scores of the incoming weights of a unit sum to those of the outgoing ones, and
    over each cut of the network to R.

    Scores are right up to one common power of two, so that no depth overflows.

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively
        conserving synaptic flow", 2020.
    """

    measure = "log10 R"
    detects_collapse = True

    def prepare(self, task: Task) -> Scorer:
        """Return the scores of a linearized network, compiled once."""
        network = Network(task.model, task.kernels)
        abs_weights = [ops.abs(t) for t in weights(task.kernels)]

        @backend.compiled
        def flow(theta: Sequence[Any], masks: Sequence[Any]) -> tuple:
            theta = masked(theta, masks)
            (total, exponent), gradients = backend.value_and_gradient(network)(theta)
            scores = [
                t * gradient for t, gradient in zip(theta, gradients, strict=True)
            ]
            return total, exponent, scores

        def score(masks: Sequence[Any]) -> Scored:
            total, exponent, scores = flow(abs_weights, masks)
            network.verify_homogeneous(abs_weights)
            total = float(total)
            log10 = math.log10(total) if total > 0 else -math.inf
            measure = log10 + float(exponent) * math.log10(2)
            return Scored(scores, measure, collapsed=total == 0)

        return score
