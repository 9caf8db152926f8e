"""What pruners that go back, or that train a ticket last, ask of a run."""

from __future__ import annotations

import math
import warnings

import keras

from keras_tickets.backend import keras_private
from keras_tickets.pruners.pruning_recipe import PruningRecipe
from keras_tickets.recipe.schedules import Run

LAST_DROP = 1.5
"""How many times the weights of the end may be left before a last, untrained drop."""

REMAINDER = 0.05
"""What moving statistics may still hold of their initial values."""


def resolution(model: keras.Model, run: Run) -> int:
    """Return the time from one call of a callback to the next."""
    return 1 if run.steps is None else min(model.steps_per_execution, run.steps)


def check_rounds(rounds: int, begin: float, model: keras.Model, run: Run) -> None:
    """Raise if rounds of equal length are shorter than what callbacks can tell apart.

    Args:
        rounds: How many there are, from `begin` to the end of the run.
        begin: When the first one begins, in the time of `run`.
        model: What is trained.
        run: How long.

    Raises:
        ValueError: The last round would not train, so that the run would end on the
            weights that it goes back to.
    """
    finest = resolution(model, run)
    if (run.length - begin) / rounds >= finest:
        return
    if run.steps is None:
        what, ways = "epoch", "pass steps_per_epoch to fit, "
    elif finest > 1:
        what, ways = "execution", "lower steps_per_execution, "
    else:
        what, ways = "step", ""
    because = " (the data does not tell how many steps it has)" * (run.steps is None)
    of_steps = "" if run.steps is None else f" of {run.steps} steps"
    epochs = math.ceil((begin + rounds * finest) / (run.steps or 1))
    raise ValueError(
        f"A run of {run.epochs} epochs{of_steps} cannot be cut into {rounds} rounds: "
        f"none can be shorter than one {what}{because}, and the last one would end "
        f"untrained, on the weights that rounds go back to. To mend it, {ways}"
        f"train for {epochs} epochs or more, or drop more in each round (fraction=)."
    )


def check_time_left(
    name: str, until: float, model: keras.Model, run: Run, untrained: bool
) -> None:
    """Raise or warn if the search ends with the run, though `until` leaves time.

    Args:
        name: The pruner's.
        until: The fraction of the run that the search takes.
        model: What is trained.
        run: How long.
        untrained: Whether weights have not trained when the search ends. Then a run
            that ends there is refused; else it is told.

    Raises:
        ValueError: No step would train the weights of the ticket.
    """
    finest = resolution(model, run)
    steps = run.steps or 1
    over = math.ceil(round(until * run.length / finest, 6)) * finest
    if until == 1 or over < run.length:
        return
    ways = "Train for more epochs"
    if run.steps is None:
        ways = (
            "The data does not tell how many steps an epoch has, so the search can end "
            "only with an epoch. Pass steps_per_epoch to fit, or train for more epochs"
        )
    elif finest > 1:
        ways = f"Lower steps_per_execution={finest}, or train for more epochs"
    text = (
        f"{name} searches for its ticket up to {until:g} of the run (until=) and then "
        f"trains it, but of {run.epochs} epochs"
        + (f" of {steps} steps" if run.steps else "")
        + f" nothing would be left to train. {ways}; or only search, with until=1.0, "
        "and train in another fit."
    )
    if untrained:
        raise ValueError(text)
    warnings.warn(text, stacklevel=3)


def refuse_to_begin(name: str, what: str, epoch: int, run: Run) -> None:
    """Raise because a run begins when a part of it should be over.

    Args:
        name: The pruner's.
        what: What should be over.
        epoch: The epoch in which the run begins.
        run: How long the model trains.

    Raises:
        ValueError: With what to do.
    """
    raise ValueError(
        f"fit begins with epoch {epoch} of {run.epochs} (initial_epoch), when {what} "
        f"of {name} should be over, but this ticket was never trained. Call fit with "
        f"initial_epoch=0 and epochs={run.epochs - epoch}, or load the ticket that was "
        "trained up to here."
    )


def check_data(name: str, epoch: int, seen: int) -> None:
    """Raise if an epoch had no step.

    Raises:
        ValueError: Time would go on, and nothing train.
    """
    if not seen:
        raise ValueError(
            f"Epoch {epoch + 1} had no training step: the data ran out. {name} goes by "
            "the time of the run, and would go on without training. Give fit data that "
            "lasts: dataset.repeat(), a generator without end, or fewer epochs."
        )


def warn_of_late_end(pruner: PruningRecipe, model: keras.Model, run: Run) -> None:
    """Warn if most of the last drop will come when training is over.

    A schedule that ends before the run may be asked only at its end, where callbacks
    see no more of an epoch.
    """
    finest, (_, end) = resolution(model, run), pruner.schedule.span(run)
    if not end < run.length <= math.ceil(round(end / finest, 6)) * finest:
        return
    before = pruner.schedule.value(run.length - finest, pruner.sparsity, run)
    if 1 - before < LAST_DROP * (1 - pruner.sparsity):
        return
    way = "Lower steps_per_execution" if finest > 1 else "Pass steps_per_epoch to fit"
    warnings.warn(
        f"{type(pruner).__name__} can look at the masks only {finest} "
        f"{'epoch' if run.steps is None else 'steps'} apart, so in this run of "
        f"{run.length} it drops from sparsity {before:.3g} to {pruner.sparsity:g} "
        f"when training is over. {way}, or train for more epochs.",
        stacklevel=3,
    )


def warn_of_statistics(
    name: str, model: keras.Model, steps: float, begin: float
) -> None:
    """Warn if BatchNorm will not have forgotten the statistics that it goes back to.

    Args:
        name: The pruner's.
        model: The model whose layers are looked at.
        steps: How many steps train after the last time that weights go back.
        begin: How many steps had trained before what is gone back to.
    """
    slow = [
        layer
        for layer in keras_private.sublayers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and layer.momentum ** (steps + begin) > REMAINDER
    ]
    if not slow:
        return
    layer = max(slow, key=lambda one: one.momentum)
    left = layer.momentum ** (steps + begin)
    needed = math.ceil(math.log(REMAINDER) / math.log(layer.momentum) - begin)
    enough = REMAINDER ** (1 / (steps + begin)) if steps + begin else 0.0
    warnings.warn(
        f"{name} trains {steps:g} steps after it goes back, too few for the moving "
        f"statistics of {len(slow)} BatchNormalization layers: those of {layer.name!r} "
        f"(momentum={layer.momentum:g}) will be {left:.0%} initial values, so "
        "validation and predict come out far below what training shows. Train "
        f"{needed} steps or more in a round, lower momentum to "
        f"{math.floor(100 * enough) / 100:g}, or set the statistics by some epochs "
        "of fit at learning rate 0.",
        stacklevel=3,
    )
