"""An exported file of any format: read once, changed in memory, written once."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
from typing import ClassVar, Self

from keras_tickets._util.file_tensor import FileTensor


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or an output of a file.

    Args:
        name: Its name.
        shape: Its shape; None stands for a size that is left open.
        dtype: The type of one element, such as `"float32"`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        """Return `image (?, 96, 96, 3) float32`."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({sizes}) {self.dtype}"


@dataclasses.dataclass(frozen=True)
class Interface:
    """What goes into a file and what comes out.

    Args:
        inputs: The inputs.
        outputs: The outputs.
        signatures: The names of the file's entries, first that whose inputs and outputs
            these are; empty where the format knows no names for them.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    signatures: tuple[str, ...] = ()


class ModelFile(abc.ABC):
    """The content of a file.

    Args:
        content: The bytes that it is read from.

    Attributes:
        suffix: The suffix of its path.
        format: What reports call the format.
        package: The package of the runtime that runs it.
        module: The module of that package.
        needed: The modules that write and check such a file.
        batch_size: What a batch size that the model leaves open becomes; None leaves it
            open in the file too.
        content: The bytes that it was read from; later changes do not show there.
        beside: Other files that hold a part of it.
    """

    suffix: ClassVar[str]
    format: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]
    needed: ClassVar[tuple[str, ...]]
    batch_size: ClassVar[int | None] = None

    content: bytes
    beside: tuple[pathlib.Path, ...] = ()

    @classmethod
    @abc.abstractmethod
    def parse(cls, content: bytes) -> Self:
        """Read a file.

        Raises:
            ValueError: If the bytes are none of this format.
            ImportError: If the package that knows the format is not installed.
        """

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file at a path."""
        return cls.parse(pathlib.Path(path).read_bytes())

    @abc.abstractmethod
    def to_bytes(self) -> bytes:
        """Return the bytes of the file, with all changes."""

    @abc.abstractmethod
    def interface(self) -> Interface:
        """Return the inputs and the outputs."""

    @abc.abstractmethod
    def notes(self) -> dict[str, tuple[int | str, ...]]:
        """Tell what the file notes of the axes of its inputs, open ones included.

        Returns:
            Input name -> for each axis a size, the name that the file has for it, or
            nothing.
        """

    @abc.abstractmethod
    def tensors(self) -> list[FileTensor]:
        """Return the constants, each stored one once, sparse ones decoded."""

    @abc.abstractmethod
    def ops(self) -> dict[str, int]:
        """Count the operators, those of subgraphs too.

        Returns:
            Operator -> how often; operators that the format's runtime does not carry
            have the prefix `custom:`.
        """

    @abc.abstractmethod
    def foreign(self) -> dict[str, str]:
        """Return the operators that the format's runtime does not carry.

        Returns:
            Operator -> the name of a node that is one, which tells the layer; empty
            where the file does not tell.
        """

    @abc.abstractmethod
    def name_outputs(self, names: dict[int, str]) -> None:
        """Give the outputs the names that they have in the model.

        Args:
            names: The names, by position in the model's order. Only outputs that the
                converter numbered (`output_0`, `Identity_1:0`) take one.
        """

    @abc.abstractmethod
    def dense_size(self) -> int:
        """Return the size of the file as read, had each tensor kept its zeros."""


def printable(name: str | bytes | None) -> str:
    """Return a name of a file as text for a terminal.

    Args:
        name: What the file's reader returned; damaged text may come as bytes.

    Returns:
        The name; a mark stands for what is no printable character.

    Example:
    >>> printable(b"dense/kernel")
    'dense/kernel'
    """
    raw = name or ""
    found = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in found)
