"""An `.npz` that may come from anywhere, read member by member within bounds.

What a member claims to be (dtype, shape, size) costs nothing; reading it costs memory.
So each claim is checked before anything of it is read.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import IO

import numpy as np

SPARE, EXPANSION = 2**16, 2
"""What the model does not bound takes `SPARE + EXPANSION * bytes of the file`."""

_CHUNK = 2**20


class Archive:
    """The arrays of an `.npz`, each checked before it is read.

    Args:
        stream: The file, opened.

    Attributes:
        names: The names of the arrays.

    Raises:
        ValueError: If a name occurs twice.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._unbound = SPARE + EXPANSION * stream.seek(0, os.SEEK_END)
        self._zip = zipfile.ZipFile(stream)
        self._members = {
            member.filename.removesuffix(".npy"): member
            for member in self._zip.infolist()
        }
        self.names = set(self._members)
        if len(self._members) != len(self._zip.infolist()):
            raise ValueError("two of its arrays have the same name")

    def check_names(self, expected: Iterable[str]) -> None:
        """Raise unless the arrays are those of `expected`.

        Raises:
            ValueError: Naming one that is missing, or one that should not be there.
        """
        expected = set(expected)
        for name in sorted(expected - self.names)[:1]:
            raise ValueError(f"{name} is missing")
        for name in sorted(self.names - expected)[:1]:
            raise ValueError(f"{name!r} does not belong there")

    def read(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array that has to be of this dtype and shape.

        Raises:
            ValueError: If it is of another, or damaged.
        """
        with self._open(name) as stream:
            found = _form(stream)
            if found[:2] != (dtype, shape):
                raise ValueError(
                    f"{name} is {found[0]} {found[1]}, expected {dtype} {shape}"
                )
            return _content(name, stream, *found)

    def read_any(self, name: str, most: int | None = None) -> np.ndarray:
        """Return an array of any dtype and shape that is not too large.

        Args:
            name: Its name.
            most: The bytes that it may take; by default they are taken from what all
                such arrays may take together.

        Raises:
            ValueError: If it is too large, or damaged.
        """
        with self._open(name) as stream:
            dtype, shape, by_columns = _form(stream)
            size = math.prod(shape) * dtype.itemsize
            limit = self._unbound if most is None else most
            if size > limit:
                raise ValueError(f"{name} claims {size:,} bytes, more than {limit:,}")
            if most is None:
                self._unbound -= size
            return _content(name, stream, dtype, shape, by_columns)

    def _open(self, name: str) -> IO[bytes]:
        if name not in self._members:
            raise ValueError(f"{name} is missing")
        return self._zip.open(self._members[name])


def is_compact(arrays: Mapping[str, np.ndarray], size: int) -> bool:
    """Return whether a file of `size` bytes may hold `arrays`, read by `read_any`."""
    total = sum(array.nbytes for array in arrays.values())
    return total <= SPARE + EXPANSION * size


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all arrays but the checksum itself."""
    total = hashlib.sha256()
    for name in sorted(set(arrays) - {"checksum"}):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _form(stream: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Return dtype, shape and whether the columns come first."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"its arrays have version {version} of NumPy's format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    # Neither is ever written: objects would be pickled, fields have sizes of their own.
    if dtype.hasobject or dtype.fields or dtype.subdtype or not dtype.itemsize:
        raise ValueError(f"an array of {str(dtype)[:80]} is none of numbers or text")
    return dtype, shape, by_columns


def _content(
    name: str,
    stream: IO[bytes],
    dtype: np.dtype,
    shape: tuple[int, ...],
    by_columns: bool,
) -> np.ndarray:
    if any(size < 0 for size in shape):
        raise ValueError(f"{name} has the shape {shape}")
    content = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    filled = 0
    # To the very end, where the zip's own checksum is compared.
    while part := stream.read(_CHUNK):
        if filled + len(part) > content.size:
            raise ValueError(f"{name} holds more than {content.size} bytes")
        content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    if filled < content.size:
        raise ValueError(f"{name} holds {filled} of {content.size} bytes")
    return np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
