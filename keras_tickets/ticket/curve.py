"""How a ticket was drawn, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_tickets._util import extras
from keras_tickets.masks.masked_call import Count, count


@dataclass(repr=False)
class Curve:
    """What a draw went through: one entry before it and one after each round.

    Attributes:
        paths: The kernels.
        measured: What `measure` is: `"log10 R"` for SynFlow, `"loss"` for scores with
            data.
        sparsity: The fraction of zeros.
        density: The fraction kept of each kernel.
        measure: The score's measure; NaN where it was not taken.
        score_seconds: Time to score, for each round; the first one compiles.
        select_seconds: Time to select, for each round.
    """

    paths: list[str]
    measured: str
    sparsity: list[float] = field(default_factory=list)
    density: list[list[float]] = field(default_factory=list)
    measure: list[float] = field(default_factory=list)
    score_seconds: list[float] = field(default_factory=list)
    select_seconds: list[float] = field(default_factory=list)

    def __repr__(self) -> str:
        rounds = len(self.sparsity) - 1
        return (
            f"<Curve of {rounds} round{'s' * (rounds != 1)}, sparsity "
            f"{self.sparsity[0]:g} to {self.sparsity[-1]:g}>"
        )

    def add(self, masks: Sequence[np.ndarray], measure: float) -> None:
        """Append a state."""
        counts = [count([mask]) for mask in masks]
        self.sparsity.append(sum(counts, Count(0, 0)).sparsity)
        self.density.append([1 - one.sparsity for one in counts])
        self.measure.append(measure)

    def plot(self, path: str | None = None) -> Any:
        """Plot densities and measure against the sparsity.

        Args:
            path: Where to write the picture.

        Returns:
            The matplotlib figure.
        """
        extras.require("matplotlib", "plot")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        kept = 1 - np.array(self.sparsity)
        left.loglog(kept, np.array(self.density), linewidth=1)
        left.set(xlabel="fraction kept", ylabel="fraction kept of each kernel")
        right.semilogx(kept, self.measure)
        right.set(xlabel="fraction kept", ylabel=self.measured)
        for axes in (left, right):
            axes.invert_xaxis()
        if path is not None:
            figure.savefig(path)
        return figure
