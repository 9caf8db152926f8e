"""What a file stores: one constant tensor, whichever the format."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """A constant tensor of an exported file.

    Args:
        name: The tensor's name in the file.
        values: Its values, decoded: always a dense array.
        encoding: How the file stores it: `"dense"`, `"sparse"`, `"sparse 1x4"` or
            `"scatter"`.
        stored_bytes: Bytes that its values and indices take in the file.
        zero: The stored number that stands for zero; quantized tensors choose one, or
            one for each channel: an array that broadcasts against the values.
        quantized: Whether integers stand for real numbers.
        itemsize: Bytes of one stored value; by default those of one of `values`.
    """

    name: str
    values: Array
    encoding: str
    stored_bytes: int
    zero: int | Array = 0
    quantized: bool = False
    itemsize: int = 0

    def __post_init__(self) -> None:
        if not self.itemsize:
            object.__setattr__(self, "itemsize", self.values.itemsize)

    @property
    def shape(self) -> tuple[int, ...]:
        """The dense shape."""
        return self.values.shape

    @property
    def dtype(self) -> str:
        """The type of one element, such as `"float32"`."""
        return self.values.dtype.name

    @property
    def nonzeros(self) -> int:
        """How many values are not zero."""
        return int(np.count_nonzero(self.values != self.zero))

    @property
    def zeros(self) -> int:
        """How many values are zero."""
        return self.values.size - self.nonzeros

    @property
    def dense_bytes(self) -> int:
        """Bytes that the values would take without a sparse encoding."""
        return self.values.size * self.itemsize

    @property
    def is_real(self) -> bool:
        """Whether the values are, or stand for, real numbers."""
        return self.quantized or is_float(self.values.dtype)

    @property
    def is_weight(self) -> bool:
        """Whether this counts as a weight: a real tensor of rank 2 or more."""
        return self.is_real and self.values.ndim >= 2


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether a NumPy dtype is a floating point one, bfloat16 included."""
    return np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16
