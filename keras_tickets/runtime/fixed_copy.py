"""Copies of a `.tflite` whose sizes are fixed, for runtimes that change none."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from keras_tickets._util.damage import reading
from keras_tickets.runtime.isolated import isolated
from keras_tickets.runtime.sizes import PATIENCE, Shapes, choose, draw, fits
from keras_tickets.tflite.file import TfliteFile


def takes(path: pathlib.Path, shapes: Shapes) -> bool:
    """Return whether a `.tflite` takes inputs of these shapes."""
    with reading(f"'{path}' cannot be read as .tflite", RuntimeError):
        ports = TfliteFile.read(path).interface().inputs
    return all(port.name in shapes and fits(port, shapes[port.name]) for port in ports)


def resize(file: TfliteFile, path: pathlib.Path, shapes: Shapes) -> None:
    """Store each tensor of a file in the shape that it has in a run.

    Args:
        file: The file; it is changed.
        path: Where it was read from; it is run there, on this machine.
        shapes: The shapes of its inputs.

    Raises:
        RuntimeError: If it cannot be run at these.
    """
    if file.stores(shapes):
        return
    values = draw(path, file.interface().inputs, shapes)
    with isolated(path, timeout=PATIENCE) as runtime:
        file.resize(runtime.shapes(values))


@contextlib.contextmanager
def fixed(
    path: pathlib.Path, given: Mapping[str, Any] | None = None
) -> Iterator[tuple[pathlib.Path, str]]:
    """Give a runtime that changes no sizes a `.tflite` that needs no change.

    Args:
        path: A `.tflite` file.
        given: Input name -> shape, for any of its inputs.

    Yields:
        The file, if it leaves no size open; else a copy at the shapes that are chosen,
        which is removed when the block ends. And what `choose` tells of them.

    Raises:
        ValueError: If what is given does not fit the file.
        RuntimeError: If it cannot be run at any sizes.
    """
    if not given and not _is_open(path):
        yield path, ""
        return
    chosen = choose(path, given)
    file = TfliteFile.read(path)
    resize(file, path, chosen.shapes)
    file.fix(chosen.shapes)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, path.name)
        copy.write_bytes(file.to_bytes())
        yield copy, chosen.told


def _is_open(path: pathlib.Path) -> bool:
    """Return whether a file leaves sizes open; what is damaged is not for us to say."""
    try:
        with reading("", RuntimeError):
            ports = TfliteFile.read(path).interface().inputs
    except RuntimeError:
        return False
    return any(None in port.shape for port in ports)
