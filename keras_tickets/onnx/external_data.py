"""Reads what an `.onnx` file keeps in other files, which lie beside it."""

from __future__ import annotations

import pathlib
from typing import Any

from keras_tickets.onnx.graph import all_tensors, is_external


def embed(model: Any, folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Take the values that are in other files into the model.

    Args:
        model: A `ModelProto`; it is changed.
        folder: The folder of the file that it was read from. Names are relative to it.

    Returns:
        The files that they were read from.

    Raises:
        ValueError: If a name leads out of the folder, or its file ends too early.
        FileNotFoundError: If a file is missing.
    """
    tensors = [proto for proto in all_tensors(model) if is_external(proto)]
    # All are looked up before one is read.
    sources = [_Source(proto, folder) for proto in tensors]
    for proto, source in zip(tensors, sources, strict=True):
        proto.raw_data = source.read()
        proto.ClearField("external_data")
        proto.ClearField("data_location")
    return tuple(sorted({source.path for source in sources}))


class _Source:
    """Where the values of one tensor lie."""

    def __init__(self, proto: Any, folder: pathlib.Path) -> None:
        said = {entry.key: entry.value for entry in proto.external_data}
        self.name, location = proto.name, said.get("location", "")
        self.path = (folder / location).resolve()
        # A name may lead anywhere, by "..", as an absolute path or by a link.
        if not location or not self.path.is_relative_to(folder.resolve()):
            raise ValueError(
                f"Tensor '{self.name}' is said to be in {location!r}, which is not in "
                "the folder of the file. Only files beside it are read."
            )
        if not self.path.is_file():
            raise FileNotFoundError(
                f"Tensor '{self.name}' is in another file, {location!r}, which is not "
                f"in '{folder}'. Put it there: both files belong together."
            )
        size = self.path.stat().st_size
        self.offset = int(said.get("offset") or 0)
        self.length = int(said.get("length") or size - self.offset)
        if not 0 <= self.offset <= self.offset + self.length <= size:
            raise ValueError(
                f"Tensor '{self.name}' takes {self.length:,} bytes from position "
                f"{self.offset:,} of {location!r}, which has {size:,}."
            )

    def read(self) -> bytes:
        """Return the values as bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)
