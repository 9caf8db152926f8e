"""Files from anywhere: a damaged one is named as such, and takes little memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

# A sparse tensor may claim this many bytes whatever it stores, and so many times what
# it stores: with 0.1 % of its values, it takes 1/670 of its dense size.
_FREE, _RATIO = 2**28, 1000


@contextlib.contextmanager
def reading(problem: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Read a file of the user's, or say that it is damaged.

    Args:
        problem: What did not work if it is: `"'m.onnx' cannot be read as .onnx"`.
        kind: What to raise.

    Raises:
        kind: For all that is raised in the block but a missing package or file.
            Offsets that lead anywhere raise anything: struct.error, IndexError,
            MemoryError.

    Example:
    >>> with reading("'m.onnx' cannot be read"):
    ...     [][0]
    Traceback (most recent call last):
    ValueError: 'm.onnx' cannot be read; it is damaged, cut off, or a file of another \
kind. IndexError: list index out of range
    """
    try:
        yield
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise kind(
            f"{problem}; it is damaged, cut off, or a file of another kind. "
            f"{type(error).__name__}: {told}"
        ) from error


def check_claim(shape: Sequence[int], itemsize: int, stored: int) -> None:
    """Refuse a sparse tensor that is larger than what it stores makes likely.

    Its size is a number in the file, which costs nothing; its values would be memory.

    Args:
        shape: The shape that the file claims.
        itemsize: Bytes of one value.
        stored: Bytes of the values and indices that the file holds.

    Raises:
        ValueError: If it claims too much.

    Example:
    >>> check_claim((1000, 1000), itemsize=4, stored=100)
    >>> check_claim((2**31, 1000), itemsize=4, stored=100)
    Traceback (most recent call last):
    ValueError: A tensor of shape (2147483648, 1000) would take 8,589,934,592,000 \
bytes, but the file stores 100 bytes of it.
    """
    claimed = math.prod(int(size) for size in shape) * itemsize
    if claimed > max(_FREE, _RATIO * stored):
        raise ValueError(
            f"A tensor of shape {tuple(map(int, shape))} would take {claimed:,} bytes, "
            f"but the file stores {stored:,} bytes of it."
        )
