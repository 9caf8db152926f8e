"""How far two lists of outputs are from each other."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_tickets._util.file_tensor import Array


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far a file is from its model on some inputs.

    Args:
        max_abs: Largest difference of any output.
        max_rel: The same, relative to the largest Keras value of that output.
        mean_abs: Mean difference over all values of all outputs.
        argmax: The fraction of rows whose largest value is at the same place, over
            all outputs of two or more values; None without such an output.
        samples: How many inputs were compared.
        assumed: What `verify` assumed: the tolerance that goes with the precision, the
            sizes of inputs that the file leaves open, and who chose them.

    Example:
    >>> gaps = [gap([np.array([[1.0, 2.0]])], [np.array([[1.0, 2.5]])])]
    >>> compare(gaps, samples=1).max_rel
    0.25
    """

    max_abs: float
    max_rel: float
    mean_abs: float
    argmax: float | None
    samples: int
    assumed: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far one output is from what was expected, over all samples.

    Args:
        largest: The largest absolute value expected.
        worst: The largest difference.
        total: The sum of all differences.
        values: How many values there are.
        rows: How many rows of two or more values.
        agreeing: In how many of them the same place is the largest.
        differing: How many values are others, if all are whole numbers: classes, masks
            or counts, which are right or wrong, and not near; else None.
    """

    largest: float
    worst: float
    total: float
    values: int
    rows: int
    agreeing: int
    differing: int | None = None

    @property
    def relative(self) -> float:
        """The largest difference, relative to the largest value expected."""
        return self.worst / self.largest if self.largest else self.worst


def gap(expected: list[Array], received: list[Array]) -> Gap:
    """Compare one output over all samples; shapes have to agree."""
    largest = worst = total = 0.0
    values = rows = agreeing = differing = 0
    whole = all(map(_is_whole, (*expected, *received)))
    for wanted, found in zip(expected, received, strict=True):
        if not wanted.size:
            continue
        exact = wanted.astype(np.float64)
        difference = np.abs(exact - found.astype(np.float64))
        largest = max(largest, float(np.abs(exact).max()))
        worst = max(worst, float(difference.max()))
        total += float(difference.sum())
        values += wanted.size
        differing += int(np.count_nonzero(difference))
        if wanted.ndim > 1 and wanted.shape[-1] > 1:
            same = wanted.argmax(-1) == found.argmax(-1)
            rows, agreeing = rows + same.size, agreeing + int(same.sum())
    counted = differing if whole else None
    return Gap(largest, worst, total, values, rows, agreeing, counted)


def _is_whole(values: Array) -> bool:
    return values.dtype.kind in "biu" or bool(np.all(values == np.rint(values)))


def compare(gaps: list[Gap], samples: int) -> Comparison:
    """Put the outputs of a model together."""
    rows = sum(gap.rows for gap in gaps)
    values = sum(gap.values for gap in gaps)
    return Comparison(
        max_abs=max((gap.worst for gap in gaps), default=0.0),
        max_rel=max((gap.relative for gap in gaps), default=0.0),
        mean_abs=sum(gap.total for gap in gaps) / max(values, 1),
        argmax=sum(gap.agreeing for gap in gaps) / rows if rows else None,
        samples=samples,
    )
