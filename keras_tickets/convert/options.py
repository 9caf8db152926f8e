"""How a file shall be written: arguments of `export` that have to go together."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras_tickets.convert import precision as precisions
from keras_tickets.convert.precision import PRECISIONS, Precision
from keras_tickets.convert.to_onnx import check_opset


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user asked for, checked.

    Args:
        suffix: The format.
        precision: The precision of the weights.
        sparse: `"auto"`, True or False; see `export`.
        opset: The operator set of an `.onnx`, or None.
        tolerance: The largest relative difference to Keras.
    """

    suffix: str
    precision: Precision
    sparse: bool | str
    opset: int | None
    tolerance: float


def check_options(
    suffix: str,
    precision: str,
    sparse: Any,
    data: Any,
    opset: int | None,
    tolerance: Any,
) -> Options:
    """Refuse what does not go together, before any work is done.

    Args:
        suffix: The suffix of the path.
        precision: As passed to `export`.
        sparse: As passed to `export`.
        data: `representative_data` as passed to `export`.
        opset: As passed to `export`.
        tolerance: As passed to `export`; None is what the precision promises.

    Returns:
        The options.

    Raises:
        ValueError: If an argument is unknown, or does not fit another.
    """
    if not isinstance(sparse, bool) and str(sparse) != "auto":
        raise ValueError(
            f"`sparse` must be 'auto', True or False. Received: {sparse!r}"
        )
    chosen = precisions.get(precision, suffix)
    if chosen.calibrated and data is None:
        raise ValueError(
            f"precision='{precision}' needs the range of the activations: pass "
            "`representative_data=x_train[:200]`, real inputs as the model gets them. "
            "Without data, use precision='int8-dynamic'."
        )
    if data is not None and not chosen.calibrated:
        calibrated = ", ".join(p.name for p in PRECISIONS.values() if p.calibrated)
        raise ValueError(
            f"`representative_data` is for precision='{calibrated}' only. "
            f"Received: precision='{precision}'"
        )
    if sparse is True and precision == "int8-dynamic":
        raise ValueError(
            "sparse=True with precision='int8-dynamic' is refused: LiteRT fails to "
            "load such files, crashes, or computes wrong numbers. Use sparse='auto' "
            "(the zeros are stored, and compress well), precision='float16', or "
            "precision='int8' with blocks of 16 inputs."
        )
    if opset is not None and suffix != ".onnx":
        raise ValueError(f"`opset` is for '.onnx' files. Received: opset={opset!r}")
    check_opset(opset)
    return Options(suffix, chosen, sparse, opset, check_tolerance(tolerance, chosen))


def check_tolerance(tolerance: Any, precision: Precision) -> float:
    """Choose the largest difference allowed.

    Args:
        tolerance: As passed by the user; None is what the precision promises.
        precision: The file's precision.

    Returns:
        The tolerance.

    Raises:
        ValueError: If it is no number of at least 0.
    """
    limit = precision.tolerance if tolerance is None else tolerance
    if not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ValueError(
            "`tolerance` is the largest difference allowed, relative to the largest "
            f"output: a number of at least 0. Received: {tolerance!r}"
        )
    return float(limit)
