"""What dynamic sparse training asks of an optimizer and of a run."""

from __future__ import annotations

import math

import keras

from keras_tickets.masks import optimizer_slots
from keras_tickets.recipe.schedules import Run


def check_optimizer(
    name: str, optimizer: keras.optimizers.Optimizer, decay: float | None
) -> None:
    """Raise if slots, or dense gradients, cannot be had under `optimizer`.

    Args:
        name: The pruner's.
        optimizer: What the ticket is compiled with.
        decay: Of the running average of dense gradients that the pruner reads; `None`
            if it reads none.

    Raises:
        ValueError: With what to use instead.
    """
    inner = optimizer_slots.innermost(optimizer)
    if optimizer_slots.split_up(optimizer):
        raise ValueError(
            f"{name} restarts the optimizer's slots of the weights "
            "that grow, and cannot tell apart those of the several optimizers in "
            f"{type(inner).__name__}. Compile with one optimizer for all weights."
        )
    if decay is None:
        return
    why = None
    if inner.gradient_accumulation_steps:
        steps = inner.gradient_accumulation_steps
        why = (
            f"gradient_accumulation_steps={steps} hands it a mix of {steps} "
            "gradients that is not their mean. Use a larger batch_size instead"
        )
    elif inner.use_ema:
        why = (
            "use_ema=True would average these gradients as if they were weights. "
            "Compile without it"
        )
    elif decay and inner.loss_scale_factor:
        why = (
            f"loss_scale_factor={inner.loss_scale_factor:g} would multiply their "
            "running average anew in every step. Compile without it, or use kt.RigL"
        )
    elif decay and inner is not optimizer:
        why = (
            "the loss is scaled by a factor that changes, so gradients of "
            "different steps cannot be averaged. Use kt.RigL, or the dtype "
            "policy mixed_bfloat16, which needs no scaling"
        )
    if why is not None:
        raise ValueError(
            f"{name} reads dense gradients, but {why}; or use kt.SET, which reads no "
            "gradients."
        )


def check_run(update_every: int, until: float, run: Run) -> None:
    """Raise if no update falls into the run, or its steps are not known."""
    end = run.time(until, "fraction")
    if run.time(update_every, "steps") >= end:
        raise ValueError(
            f"update_every={update_every} steps, but the masks of this run "
            f"may move in its first {end:g} steps only (until={until:g} of "
            f"{run.epochs} epochs of {run.steps} steps), so they never would. "
            "Lower update_every, train longer, or use kt.Static."
        )


def updates_due(update_every: int, until: float, run: Run, begun: int, now: int) -> int:
    """Return how many updates fall into the steps from `begun` to `now`."""
    end = run.time(until, "fraction")
    last = min(now, math.ceil(end) - 1)  # from `end` on masks stay
    return max(0, last // update_every - begun // update_every)
