"""The precisions in which a file may store its weights, and what each one promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_tickets._util.file_tensor import FileTensor


@dataclasses.dataclass(frozen=True)
class Precision:
    """What a file of one precision stores, and how close to Keras it has to be.

    Args:
        name: How users call it.
        suffixes: The formats that have it.
        tolerance: The largest difference to Keras, relative to the largest absolute
            value of the same output. One weight is off by at most 6e-8 of its size in
            float32, by 5e-4 in float16 and by 1/254 of the largest of its channel in
            int8; layers add to it.
        calibrated: Whether the range of activations is taken from data.
        instead: The nearest choice where the format lacks this one.
    """

    name: str
    suffixes: tuple[str, ...]
    tolerance: float
    calibrated: bool = False
    instead: str = ""


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float32", (".tflite", ".onnx"), 1e-5),
        Precision("float16", (".tflite", ".onnx"), 1e-2),
        Precision("int8-dynamic", (".tflite",), 0.1, instead="float16"),
        Precision("int8", (".tflite",), 0.2, calibrated=True, instead="float16"),
    )
}


def get(name: str, suffix: str) -> Precision:
    """Find a precision by its name.

    Args:
        name: Such as `"float16"`.
        suffix: The format of the file.

    Returns:
        The precision.

    Raises:
        ValueError: If there is none of that name, or the format lacks it.
    """
    if not isinstance(name, str) or name not in PRECISIONS:
        names = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"`precision` must be one of {names}. Received: {name!r}")
    precision = PRECISIONS[name]
    if suffix not in precision.suffixes:
        raise ValueError(
            f"precision='{name}' is not written in '{suffix}' files: ONNX Runtime's "
            "int8 convolutions are slower than its float32 ones, and its file is no "
            f"smaller after compression. Use precision='{precision.instead}', or a "
            "path that ends with '.tflite'."
        )
    return precision


def check_range(tensors: list[FileTensor], where: Callable[[str], str]) -> None:
    """Check that what a file stores in float16 fits into it.

    The file's own constants, not the model's weights: scales that are folded into a
    kernel may carry it out of the range, and what is folded away does not matter.

    Args:
        tensors: The constants of the file.
        where: Gives the layer of a tensor's name.

    Raises:
        ValueError: If a number is beyond it; names the layer.
    """
    largest = float(np.finfo(np.float16).max)
    for tensor in tensors:
        # Converters cut at the largest number, or write infinity.
        if (
            tensor.dtype == "float16"
            and np.abs(tensor.values).max(initial=0) >= largest
        ):
            raise ValueError(
                f"Layer '{where(tensor.name)}' has weights, or weights times the scale "
                f"of its BatchNorm, beyond {largest:g}, where float16 ends. Export "
                "with precision='float32', or scale them down."
            )
