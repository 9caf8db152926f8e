"""Are a file's outputs those that were expected? Numbers, and errors that say where."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping

import numpy as np

from keras_tickets._util.file_tensor import Array
from keras_tickets.convert.comparison import Comparison, Gap, compare, gap

# Below this, a difference is rounding noise of the numbers that an output was computed
# from; unless it is more than a thousandth of the output, which zeros would be too.
_NOISE, _NOISE_PART = 1e-7, 1e-3

# Outputs that change by less than this, relative to their size, do not change.
_CONSTANT = 1e-6


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a file shall compute.

    Args:
        who: Who computed it, for errors: `"Keras"`.
        name: The model that was run: `"'cnn'"`.
        labels: What to call each output.
        outputs: For each sample, the values of each output.
    """

    who: str
    name: str
    labels: list[str]
    outputs: list[list[Array]]

    def __post_init__(self) -> None:
        check_finite(self.who, self.outputs, self.labels)
        self._warn_if_constant()

    def _warn_if_constant(self) -> None:
        """Warn if the outputs are constant: a file that ignores inputs would pass."""
        if len(self.outputs) < 2:
            return
        for first, *others in zip(*self.outputs, strict=True):
            scale = float(np.abs(first.astype(np.float64)).max(initial=0.0))
            rows = [np.atleast_1d(o)[:1].astype(np.float64) for o in (first, *others)]
            # Sizes that are open may differ: what all have in common is compared.
            sizes = np.min([row.shape for row in rows], axis=0)
            rows = [row[tuple(map(slice, sizes))] for row in rows]
            changes = [np.abs(row - rows[0]) for row in rows[1:]]
            if max(float(c.max(initial=0.0)) for c in changes) > _CONSTANT * scale:
                return
        warnings.warn(
            f"{self.name} computes the same outputs for {len(self.outputs)} different "
            "inputs, so comparing its file with it proves little. Either the model "
            "collapsed (too few weights kept), or it needs real inputs: pass "
            "`samples=x_test[:4]`.",
            stacklevel=7,
        )


def judge(
    expected: Expected,
    received: list[list[Array]],
    counts: Mapping[str, int],
    limits: Mapping[str, float],
) -> dict[str, Comparison]:
    """Compare the outputs of a file with what was expected.

    Args:
        expected: What it shall compute.
        received: What it computes, in the same order.
        counts: How many samples there are of each kind, in their order.
        limits: For each kind that is checked, the largest difference allowed, relative
            to the largest absolute value expected of the same output.

    Returns:
        How far the file is from what was expected, for each kind of samples.

    Raises:
        RuntimeError: If an output is not finite, has another shape, or differs by more
            than its limit.
    """
    check_finite("The file", received, expected.labels)
    comparisons, start = {}, 0
    for kind, count in counts.items():
        part = slice(start, start + count)
        gaps = _gaps(expected, expected.outputs[part], received[part])
        if kind in limits:
            _check_gaps(expected, kind, gaps, limits[kind])
        comparisons[kind] = compare(gaps, count)
        start += count
    return comparisons


def check_finite(who: str, outputs: list[list[Array]], labels: list[str]) -> None:
    """Refuse outputs that hold NaN or infinity.

    Args:
        who: Who computed them.
        outputs: For each sample, the values of each output.
        labels: What to call each output.

    Raises:
        RuntimeError: If one is not finite.
    """
    for sample in outputs:
        for label, values in zip(labels, sample, strict=True):
            bad = int(values.size - np.isfinite(values.astype(np.float64)).sum())
            if bad:
                raise RuntimeError(
                    f"{who} computes {bad} values of {values.size} that are not "
                    f"finite (NaN or infinite) in {label}. If the random inputs are to "
                    "blame, pass real ones: `samples=x_test[:4]`."
                )


def _gaps(
    expected: Expected, wanted: list[list[Array]], received: list[list[Array]]
) -> list[Gap]:
    for sample, others in zip(wanted, received, strict=True):
        for label, values, found in zip(expected.labels, sample, others, strict=True):
            if values.shape != found.shape:
                raise RuntimeError(
                    f"The file computes {label} with shape {found.shape}; "
                    f"{expected.who} computes {values.shape}."
                )
    outputs = zip(zip(*wanted, strict=True), zip(*received, strict=True), strict=True)
    return [gap(list(values), list(found)) for values, found in outputs]


def _noise(largest: float) -> float:
    """Return how much rounding explains in outputs of this size."""
    return min(_NOISE, _NOISE_PART * largest) if largest else _NOISE


def _check_gaps(
    expected: Expected, kind: str, gaps: list[Gap], tolerance: float
) -> None:
    for label, found in zip(expected.labels, gaps, strict=True):
        if found.differing is not None and found.differing <= tolerance * found.values:
            continue
        if found.worst > tolerance * found.largest + _noise(found.largest):
            raise RuntimeError(
                f"The file does not compute what {expected.name} computes: "
                f"{label} differs by {found.worst:.3g} on {kind} inputs (largest value "
                f"expected {found.largest:.3g}), which is {found.relative:.2g} "
                f"relative; at most {tolerance:g} was expected. If the model is random "
                "in inference, or Keras ran on a GPU with reduced precision, compare "
                "on the CPU or pass a larger `tolerance`."
            )
