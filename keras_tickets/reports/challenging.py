"""`challenge`: is it a winning ticket, or do its rivals do as well?"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import table
from keras_tickets.reports.contestants import KINDS, Contestants
from keras_tickets.ticket.ticket import Ticket

RIVALS = ("shuffled", "reinitialised", "random")
"""What a ticket has to beat: each takes away one thing that would make it one."""


_TRAINED = (
    "the ticket was trained after its draw, or came with its zeros, and does not "
    "remember its start values: it begins with trained weights, and its rivals do not. "
    "Wrap the model anew with kt.wrap(model, pruner, remember=True), or challenge "
    "before it trains."
)


@dataclass(frozen=True, repr=False)
class Challenge(Shown):
    """How a ticket did against its rivals. Prints as a table with a verdict.

    Args:
        name: The ticket's name.
        sparsity: Its fraction of zeros.
        seeds: The seeds of the runs.
        runs: The figure of each run by contestant, in the order of `seeds`.
        remembered: Whether the ticket's start values were remembered from before the
            draw; if not they are the weights that it had when it was challenged.
        left_out: Why a contestant did not run, by name.
        trained: Whether those weights had trained under the ticket's masks, and so are
            no start values.
    """

    name: str
    sparsity: float
    seeds: tuple[int, ...]
    runs: Mapping[str, Sequence[float]]
    remembered: bool = True
    left_out: Mapping[str, str] = field(default_factory=dict)
    trained: bool = False

    @property
    def mean(self) -> dict[str, float]:
        """The mean figure of each contestant."""
        return {name: math.fsum(runs) / len(runs) for name, runs in self.runs.items()}

    @property
    def spread(self) -> dict[str, float]:
        """The sample standard deviation over the seeds; NaN for a single one."""
        several = len(self.seeds) > 1
        return {
            name: float(np.std(runs, ddof=1)) if several else math.nan
            for name, runs in self.runs.items()
        }

    def pooled(self, rival: str) -> float:
        """Return the spread of ticket and rival: the root of their mean square."""
        spread = self.spread
        return math.sqrt((spread["ticket"] ** 2 + spread[rival] ** 2) / 2)

    def lead(self, rival: str) -> float:
        """Return by how much the ticket's mean is above that of `rival`."""
        return self.mean["ticket"] - self.mean[rival]

    @property
    def is_ticket(self) -> bool | None:
        """Whether it beats each of `RIVALS` by more than the pooled spread.

        `None` if that cannot be told: one seed, a figure that is not finite, or a
        ticket that trained and does not remember where it started.
        """
        if not self._known:
            return None
        return all(self.lead(rival) > self.pooled(rival) for rival in RIVALS)

    @property
    def matches_dense(self) -> bool | None:
        """Whether it is not below the dense model by more than the pooled spread."""
        if not self._known:
            return None
        return self.lead("dense") >= -self.pooled("dense")

    @property
    def verdict(self) -> str:
        """What came out, in one sentence."""
        if self.trained:
            return f"unknown: {_TRAINED}"
        if len(self.seeds) < 2:
            return (
                "unknown: one seed has no spread. Challenge with several, such as "
                "seeds=(0, 1, 2)."
            )
        if not self._known:
            bad = [name for name in self.runs if not math.isfinite(self.mean[name])]
            return f"unknown: figures of {', '.join(bad)} are not finite."
        dense = "matches" if self.matches_dense else "falls short of"
        equal = [rival for rival in RIVALS if self.lead(rival) <= self.pooled(rival)]
        if equal:
            return (
                f"no winning ticket: {' and '.join(equal)} "
                f"{'does' if len(equal) == 1 else 'do'} as well, within the spread. It "
                f"{dense} the dense model."
            )
        return (
            "a winning ticket: masks and start values belong together, its shuffled, "
            f"reinitialised and random rivals do worse. It {dense} the dense model."
        )

    @property
    def _known(self) -> bool:
        needed = [self.mean[name] for name in ("ticket", *RIVALS, "dense")]
        told = len(self.seeds) > 1 and not self.trained
        return told and all(map(math.isfinite, needed))

    def __str__(self) -> str:
        return _table(self)


def challenge(
    ticket: Ticket,
    train: Callable[[Ticket], Any],
    seeds: Sequence[int] = (0, 1, 2),
    verbose: int = 1,
) -> Challenge:
    """Train a ticket and its rivals alike, and say whether it is a winning one.

    The contestants, each trained with every seed:

    - `ticket`: its masks, its start values.
    - `shuffled`: its masks permuted inside each kernel; the same weights.
    - `reinitialised`: its masks; fresh weights from the layers' own initializers.
    - `random`: permuted masks and fresh weights: a random ticket.
    - `inverted`: the lowest scores kept, where these can be taken again.
    - `dense`: no masks; the same weights.

    All but the last have the same number of weights in each kernel. Each is a copy: the
    ticket, its model and what they were compiled with are not touched. The seeds of
    `keras.utils.set_random_seed` are, as by any training.

    Start values are those that the ticket remembers (`kt.wrap(..., remember=True)`),
    else its present weights. So challenge a ticket that does not remember before it
    trains: afterwards its weights are no start values. Such a challenge warns, and its
    verdict is "unknown".

    Args:
        ticket: A ticket that was drawn.
        train: Called as `train(contestant)` with an uncompiled ticket with fixed masks;
            compiles and fits it, and returns a figure of merit, higher being better,
            such as the accuracy on validation data. `contestant.name` says which it is.
        seeds: For each, all contestants are trained after `set_random_seed(seed)`. Two
            at least, for a spread.
        verbose: 0 for silence, 1 for a progress bar over the runs.

    Returns:
        A `Challenge`; print it.

    Raises:
        TypeError: If `ticket` is none, or `train` returns no number.
        ValueError: If the ticket was not drawn, or seeds are missing or repeated.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> def train(contestant):  # stands for compile, fit, evaluate
    ...     kernel, mask = contestant.model.get_weights()[0], *contestant.masks.values()
    ...     return float(abs(kernel[mask]).sum() - abs(kernel[~mask]).sum())
    >>> result = kt.challenge(ticket, train, verbose=0)
    >>> result.is_ticket, result.mean["ticket"] > result.mean["inverted"]
    (True, True)

    Reference:
        Su et al., "Sanity-checking pruning methods: Random tickets can win the
        jackpot", 2020; Frankle et al., "Pruning neural networks at initialization: why
        are we missing the mark?", 2021.
    """
    numbers = _check(ticket, train, seeds)
    contestants = Contestants(ticket)
    trained = ticket.trained and not contestants.parts.remembered
    if trained:
        warnings.warn(f"{ticket.name!r} cannot win: {_TRAINED}", stacklevel=2)
    runs: dict[str, list[float]] = {name: [] for name in contestants.names}
    bar = keras.utils.Progbar(
        len(runs) * len(numbers), verbose=verbose, unit_name="run"
    )
    for seed in numbers:
        for name, figures in runs.items():
            contestant = contestants.make(name, seed)
            keras.utils.set_random_seed(seed)
            figures.append(_figure(train(contestant), name, seed))
            done = sum(map(len, runs.values()))
            bar.update(done, [(name, figures[-1])])
    return Challenge(
        ticket.name,
        ticket.sparsity,
        numbers,
        runs,
        contestants.parts.remembered,
        contestants.left_out,
        trained,
    )


def _check(ticket: Ticket, train: Any, seeds: Sequence[int]) -> tuple[int, ...]:
    """Raise if there is nothing to challenge; return the seeds."""
    if not isinstance(ticket, Ticket):
        raise TypeError(
            "kt.challenge expects a Ticket, which kt.wrap(model, pruner) makes. "
            f"Received: {type(ticket).__name__}."
        )
    if not callable(train):
        raise TypeError(
            "train must be a function: train(ticket) compiles and fits the ticket and "
            f"returns its accuracy. Received: {train!r}."
        )
    numbers = tuple(operator.index(seed) for seed in seeds)
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ValueError(
            "seeds must be different non-negative integers, two at least for a spread, "
            f"such as (0, 1, 2). Received: {seeds!r}."
        )
    if not ticket.drawn:
        raise ValueError(
            f"Ticket {ticket.name!r} was never drawn: there is nothing to challenge. "
            "Call ticket.draw() or ticket.fit(...) first."
        )
    return numbers


def _figure(value: Any, name: str, seed: int) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"train returned {value!r} for {name!r} with seed {seed}. Expected one "
            "number, higher being better: return "
            "float(history.history['val_accuracy'][-1])."
        ) from error


def _table(result: Challenge) -> str:
    mean, spread = result.mean, result.spread
    start = (
        "as remembered from before the draw."
        if result.remembered
        else "what the ticket's weights were when it was challenged (it does not "
        "remember others)."
    )
    return table(
        f"{result.name}: sparsity {result.sparsity:.4g}, seeds {result.seeds}",
        ("contestant", "masks", "weights", ">mean ± spread", ">ticket ahead by"),
        [
            (
                name,
                KINDS[name].masks,
                KINDS[name].weights,
                f"{mean[name]:.4f} ± {_shown(spread[name])}",
                "" if name == "ticket" else f"{result.lead(name):+.4f}",
            )
            for name in result.runs
        ],
        notes=[
            f"start: {start}",
            *(f"{name} left out: {why}" for name, why in result.left_out.items()),
            f"Verdict: {result.verdict}",
        ],
    )


def _shown(spread: float) -> str:
    return "?" if math.isnan(spread) else f"{spread:.4f}"
