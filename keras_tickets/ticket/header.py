"""The header of a ticket file: JSON from anywhere, checked field by field."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_tickets.kernels import Kernel
from keras_tickets.ticket.architecture import Weight
from keras_tickets.ticket.saved_config import check_depth, check_pair, check_positions

FORMAT = 1


class NewerFormatError(ValueError):
    """The file is whole, but this version does not know its format."""


@dataclass(frozen=True)
class StateRow:
    """What a layer saves besides weights: names and dtypes of arrays, paths of files.

    Args:
        layer: The layer's key.
        values: Name and dtype of each array.
        assets: Path of each file.
    """

    layer: str
    values: tuple[tuple[str, str], ...]
    assets: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """What a ticket file says of itself.

    Args:
        weights: A row for each weight of the model.
        kernels: The position of each kernel that is masked.
        shapes: Its shape.
        skipped: Position and reason of the kernels that are left alone.
        states: What layers save besides weights.
        provenance: How the ticket came about.
    """

    weights: tuple[Weight, ...]
    kernels: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    skipped: tuple[tuple[int, str], ...]
    states: tuple[StateRow, ...]
    provenance: Mapping[str, Any]

    def to_json(self) -> bytes:
        """Return what `parse_header` reads."""
        rows = {
            "weights": [asdict(weight) for weight in self.weights],
            "states": [asdict(row) for row in self.states],
        }
        header = {**vars(self), **rows, "format": FORMAT}
        return json.dumps(header, default=repr).encode()

    def check_kernels(self, kernels: Sequence[Kernel]) -> None:
        """Raise unless the positions and shapes are those of kernels of a model.

        Raises:
            ValueError: Naming the first that is not.
        """
        skipped = [position for position, _ in self.skipped]
        check_positions((*self.kernels, *skipped), len(kernels))
        if len(self.kernels) != len(self.shapes):
            raise ValueError(f"{len(self.shapes)} shapes for {len(self.kernels)} masks")
        for position, shape in zip(self.kernels, self.shapes, strict=True):
            kernel = kernels[position]
            if shape != kernel.shape:
                raise ValueError(
                    f"mask_{position} has the shape {shape}, its kernel "
                    f"{kernel.path!r} {kernel.shape}"
                )

    def mask_sizes(self) -> dict[str, int]:
        """Return the bytes of each mask, a bit for each weight, by its name."""
        return {
            f"mask_{position}": math.ceil(math.prod(shape) / 8)
            for position, shape in zip(self.kernels, self.shapes, strict=True)
        }


def longest_header(weights: int) -> int:
    """Return the bytes that a header may have, for so many weights of a model."""
    return 2**20 + 2**11 * weights


def parse_header(content: bytes) -> Header:
    """Return what a header says.

    Raises:
        NewerFormatError: If a newer version wrote it.
        ValueError: If it is none.
    """
    header = _mapping(json.loads(content), "the header")
    version = _of(int, header, "format")
    if version > FORMAT:
        raise NewerFormatError(version)
    if version < 1:
        raise ValueError(f"its format is {version}")
    provenance = _mapping(_of(dict, header, "provenance"), "provenance")
    check_depth(provenance)
    if provenance.get("values") not in ("start", "present"):
        raise ValueError("it does not say of when its values are")
    return Header(
        tuple(map(_weight, _of(list, header, "weights"))),
        tuple(_each(int, _of(list, header, "kernels"), "kernels")),
        tuple(_shape(shape) for shape in _of(list, header, "shapes")),
        tuple(check_pair(pair) for pair in _of(list, header, "skipped")),
        # Files of version 0.1 hold no states.
        tuple(map(_state, _of(list, header, "states") if "states" in header else ())),
        provenance,
    )


def _weight(row: Any) -> Weight:
    row = _mapping(row, "weights")
    names = {field.name for field in fields(Weight)}
    if set(row) != names:
        raise ValueError(f"a weight has {sorted(row)[:9]}, expected {sorted(names)}")
    texts = {name: _of(str, row, name) for name in names - {"shape"}}
    return Weight(**texts, shape=_shape(row["shape"]))


def _shape(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, list):
        raise ValueError(f"a shape is a list of sizes, not {str(sizes)[:80]}")
    shape = tuple(_each(int, sizes, "shape"))
    if any(size < 0 for size in shape):
        raise ValueError(f"{shape} is no shape")
    return shape


def _state(row: Any) -> StateRow:
    row = _mapping(row, "states")
    values = tuple(
        tuple(_each(str, pair if isinstance(pair, list) else [pair], "values"))
        for pair in _of(list, row, "values")
    )
    assets = tuple(_each(str, _of(list, row, "assets"), "assets"))
    pairs = tuple((pair[0], pair[1]) for pair in values if len(pair) == 2)
    if len(pairs) != len(values) or len(dict(pairs)) != len(pairs):
        raise ValueError("each array of a layer has one name and one dtype")
    _check_assets(assets)
    return StateRow(_of(str, row, "layer"), pairs, assets)


def _check_assets(paths: Sequence[str]) -> None:
    """Raise unless the paths are those of files inside one folder, without clash."""
    taken: set[tuple[str, ...]] = set()
    for path in paths:
        parts = pathlib.PureWindowsPath(path)  # knows the separators of all systems
        if parts.anchor or ".." in parts.parts or not parts.parts or "\0" in path:
            raise ValueError(f"{path[:80]!r} is no path inside a folder")
        taken.add(parts.parts)
    folders = {names[:i] for names in taken for i in range(1, len(names))}
    if len(taken) < len(paths) or taken & folders:
        raise ValueError("two of its files have the same path")


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no table of fields")
    return value


def _of(kind: type, row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"{name} is missing in its header")
    if type(row[name]) is not kind:
        raise ValueError(f"{name} is {str(row[name])[:80]}, expected {kind.__name__}")
    return row[name]


def _each(kind: type, values: Sequence[Any], name: str) -> Sequence[Any]:
    for value in values:
        if type(value) is not kind:
            raise ValueError(f"{name} holds {str(value)[:80]!r}")
    return values
