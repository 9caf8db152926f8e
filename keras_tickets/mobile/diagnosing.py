"""`diagnose`: will it run sparse on the phone? Of a file, or of a model beforehand."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_tickets._util.checks import check_model
from keras_tickets.convert.precision import PRECISIONS
from keras_tickets.mobile.probe_model import diagnose_probe, probe
from keras_tickets.runtime.file_diagnosis import diagnose_file
from keras_tickets.xnnpack.diagnosis import Diagnosis


def diagnose(
    model_or_file: keras.Model | str | os.PathLike[str],
    *,
    sparsity: float | None = None,
    precision: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Diagnosis:
    """Tell layer by layer what runs sparse on a phone, why not, and what would help.

    Use it before you train: zeros that no sparse kernel reads make a file smaller, and
    nothing faster. Of a model, a copy is pruned at random and converted as `kt.export`
    does, so that what is judged is a file in each case; nothing is run. The rules are
    those of XNNPACK, mirrored from its source and held against the kernels that ran on
    ARM64 (`kt.mobile.sparse_path` counts them).

    Args:
        model_or_file: A ticket, a built Keras model, or a `.tflite` file of any origin.
        sparsity: Of a model: the fraction of zeros to assume. By default a model that
            has zeros is judged by them, and others by the sparsity of the ticket's
            pruner, or 0.9.
        precision: Of a model: the precision that it will be exported in; by default
            `"float32"`.
        input_shapes: Of a file that leaves sizes open: the shapes of its inputs by
            their names. By default those of `benchmark`.

    Returns:
        A `Diagnosis`, which prints as a table: for each layer whether it runs sparse,
        its cluster and the zeros of that; a verdict with the expected speed-up.

    Raises:
        TypeError: If it is neither a model nor a path.
        ValueError: If there is no such precision, the model is not built, the file is
            damaged or of another kind, or something is to be assumed that is known: of
            a file, or the zeros of a ticket that is drawn.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        RuntimeError: If the model cannot be converted.
        ImportError: If `keras-tickets[export]` is not installed.

    Example:

    ```python
    print(kt.diagnose(model))  # before training
    print(kt.diagnose("model.tflite"))  # after export
    ```

    Reference:
        Elsen et al., "Fast sparse ConvNets", 2020.
    """
    if isinstance(model_or_file, str | os.PathLike):
        _check_nothing_assumed(model_or_file, sparsity=sparsity, precision=precision)
        return diagnose_file(model_or_file, input_shapes)
    check_model(model_or_file)
    if input_shapes is not None:
        raise ValueError(
            "input_shapes= is for a file that leaves sizes open; of a model, give "
            f"keras.Input the sizes. Received: input_shapes={input_shapes!r}"
        )
    precision = "float32" if precision is None else precision
    _check(sparsity, precision)
    found = probe(model_or_file, sparsity)
    return diagnose_probe(found, f"'{model_or_file.name}'", precision)


def _check_nothing_assumed(path: str | os.PathLike[str], **assumed: Any) -> None:
    """Refuse to assume what a file says by itself."""
    for name, value in assumed.items():
        if value is not None:
            raise ValueError(
                f"'{os.fspath(path)}' is a file, whose zeros and precision are read "
                f"from it; {name}= is what to assume of a model before it is exported. "
                f"Received: {name}={value!r}. Leave it out, or pass the model."
            )


def _check(sparsity: Any, precision: str) -> None:
    number = isinstance(sparsity, numbers.Real)
    if sparsity is not None and not (number and 0.0 <= sparsity < 1.0):
        raise ValueError(
            "sparsity is the fraction of zeros and must lie in [0, 1). Received: "
            f"{sparsity!r}. For 90 % zeros write sparsity=0.9."
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {list(PRECISIONS)}. Received: {precision!r}."
        )
