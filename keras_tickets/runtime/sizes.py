"""Sizes for the axes that a file leaves open: passed, noted in the file, or tried.

A file takes any size there by its word; its operators may not. What nobody says is
found by running the file, on this machine and in a process of its own, at usual sizes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_tickets._util.damage import reading
from keras_tickets._util.model_file import Interface, ModelFile, Port
from keras_tickets.runtime import formats, interpreters
from keras_tickets.runtime.isolated import isolated

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# What is tried in turn: of images, then of sequences, then of what has more axes. The
# first is what most networks are trained at, or small enough to run at all.
_IMAGES = (224, 256, 320, 640, 512, 128, 96, 64, 32, 28, 48)
_LENGTHS = (128, 32, 512, 64, 16, 256, 1, 1024, 16000)
_VOLUMES = (32, 64, 16, 128, 8)

# Values of an input, at most: what is drawn takes 2 GiB meanwhile.
_LARGEST = 2**28

# Seconds that loading a file, and running it once, may take there.
PATIENCE = 120.0

_BATCH = re.compile(r"batch|^bs$|^n$", re.IGNORECASE)
_CHANNELS = re.compile(r"channel|^c$", re.IGNORECASE)
# Names of a first axis that is no batch size.
_LENGTH = re.compile(
    r"height|width|^[hw]$|seq|len|time|frame|sample|token|steps", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The shape that each input of a file is run in.

    Args:
        shapes: Input name -> shape.
        told: For each input with open axes its shape, and who chose it, in words;
            empty if no axis is open.
    """

    shapes: Shapes
    told: str = ""


def choose(path: pathlib.Path, given: Mapping[str, Any] | None = None) -> Sizes:
    """Choose a shape for each input of a file.

    Args:
        path: A `.tflite` or `.onnx` file.
        given: Input name -> shape, for any of its inputs.

    Returns:
        The shapes: as given; as the file notes them; else the first ones tried that it
        runs at. An open batch size is 1.

    Raises:
        ValueError: If what is given does not fit the file.
        RuntimeError: If the file is damaged, or sizes have to be tried and it runs at
            none of them, or an input would be too large.
    """
    shapes = tuple(
        (name, check_shape(name, shape)) for name, shape in (given or {}).items()
    )
    state = path.stat()
    return _choose(path.absolute(), state.st_mtime_ns, state.st_size, shapes)


def check_shape(name: str, shape: Any) -> Shape:
    """Return a shape that was passed for an input, as integers.

    Raises:
        ValueError: If it is none.
    """
    whole = isinstance(shape, Sequence | np.ndarray) and all(
        isinstance(size, int | np.integer) and size > 0 for size in shape
    )
    if not whole:
        raise ValueError(
            f"`input_shapes` gives each input the sizes of all its axes, such as "
            f"{{'{name}': (1, 320, 320, 3)}}. Received: {shape!r} for '{name}'."
        )
    return tuple(map(int, shape))


@functools.lru_cache(maxsize=64)  # Files run in rounds; sizes are tried once.
def _choose(
    path: pathlib.Path, changed: int, size: int, given: tuple[tuple[str, Shape], ...]
) -> Sizes:
    with reading(f"The inputs of '{path}' cannot be read", RuntimeError):
        file = formats.read(path)
        interface, notes = file.interface(), file.notes()
    passed = dict(given)
    _check(path, interface, passed)
    plans = _plans(interface.inputs, notes, passed)
    tried = any(None in plan for plan in plans.values())
    shapes = (
        _tried(path, file, interface, plans, notes) if tried else _filled(plans, {})
    )
    _check_size(path, interface.inputs, shapes)
    told = [
        f"{port} runs at {shapes[port.name]}, {_who(port, plans[port.name], passed)}"
        for port in interface.inputs
        if None in port.shape or port.name in passed
    ]
    return Sizes(shapes, "\n".join(told))


def _check(path: pathlib.Path, interface: Interface, given: Shapes) -> None:
    """Refuse shapes that the file does not take."""
    ports = {port.name: port for port in interface.inputs}
    for name, shape in given.items():
        if name not in ports:
            raise ValueError(
                f"`input_shapes` names {name!r}, which is no input of '{path.name}': "
                f"it takes {', '.join(map(str, ports.values())) or 'nothing'}."
            )
        if not fits(ports[name], shape):
            raise ValueError(
                f"'{path.name}' takes the input {ports[name]}; `input_shapes` can give "
                f"a size to what is '?' only. Received: {shape}"
            )


def names(path: pathlib.Path) -> list[str]:
    """Return the names of the inputs of a file."""
    with reading(f"The inputs of '{path}' cannot be read", RuntimeError):
        return [port.name for port in formats.read(path).interface().inputs]


def fits(port: Port, shape: Shape) -> bool:
    """Return whether an input takes a shape."""
    own = port.shape
    return not own or (
        len(own) == len(shape)
        and all(a in (None, b) for a, b in zip(own, shape, strict=True))
    )


# Input name -> a size for each axis; None where one has to be found by trying.
_Plans = dict[str, tuple[int | None, ...]]


def _plans(ports: Sequence[Port], notes: Mapping[str, Any], given: Shapes) -> _Plans:
    return {
        port.name: given.get(port.name)
        or tuple(
            _known(port, axis, notes.get(port.name, ()), len(ports) == 1)
            for axis in range(len(port.shape))
        )
        for port in ports
    }


def _known(port: Port, axis: int, notes: Sequence[int | str], only: bool) -> int | None:
    """Return the size of an axis that is fixed, noted, or that of the batch."""
    size = port.shape[axis]
    if size is not None:
        return size
    note = notes[axis] if axis < len(notes) else ""
    if _is_batch(port, axis, note, only):
        return 1
    if _CHANNELS.search(str(note)) or (axis == 1 and port.shape[1:] == (None,) * 3):
        return 3
    return note if isinstance(note, int) else None


def _is_batch(port: Port, axis: int, note: int | str, only: bool) -> bool:
    name = note if isinstance(note, str) else ""
    if _BATCH.search(name):
        return True
    if axis or _LENGTH.search(name):
        return False
    # The only axis of the only input, if it holds measurements: a signal, no batch.
    return len(port.shape) > 1 or not only or "float" not in port.dtype


def _who(port: Port, plan: Sequence[int | None], given: Shapes) -> str:
    if port.name in given:
        return "as passed"
    if None in plan:
        return (
            "the first of some usual sizes that it runs at; pass your own by "
            "input_shapes= or --shape"
        )
    noted = any(
        own is None and size != 1 for own, size in zip(port.shape, plan, strict=True)
    )
    return "as the file notes it" if noted else "one at a time"


def _tried(
    path: pathlib.Path,
    file: ModelFile,
    interface: Interface,
    plans: _Plans,
    notes: Mapping[str, Any],
) -> Shapes:
    """Return the first shapes at which the file runs."""
    attempts = list(_attempts(interface.inputs, plans, notes))
    if not importlib.util.find_spec(file.module):  # It runs elsewhere, if at all.
        return attempts[0]
    why = ""
    for shapes in attempts:
        try:
            _attempt(path, interface, shapes)
        except RuntimeError as error:
            why = why or f"At {_sizes(shapes)}: {error}"
        else:
            return shapes
    takes = ", ".join(map(str, interface.inputs))
    name = next(name for name, plan in plans.items() if None in plan)
    raise RuntimeError(
        f"'{path.name}' leaves sizes open ({takes}), and runs at none of "
        f"{len(attempts)} that were tried. Pass those that it is made for, such as "
        f"input_shapes={{'{name}': {attempts[0][name]}}}. {why}"
    )


def _attempts(
    ports: Sequence[Port], plans: _Plans, notes: Mapping[str, Any]
) -> Iterator[Shapes]:
    """Return what is tried: all inputs alike, then the first one alone."""
    lists = {port.name: _usual(port, plans[port.name]) for port in ports}
    first = next(name for name, plan in plans.items() if None in plan)
    seen = []
    for alone, number in itertools.product(
        (False, True), range(max(map(len, lists.values())))
    ):
        named: dict[Any, int] = {}
        sizes = {name: own[min(number, len(own) - 1)] for name, own in lists.items()}
        if alone:  # The others are states, whose axes are batch sizes.
            sizes = {**dict.fromkeys(sizes, 1), first: sizes[first]}
        for name, plan in plans.items():
            for axis, note in enumerate(notes.get(name, ())):
                if note and axis < len(plan) and plan[axis] is None:
                    named.setdefault(note, sizes[name])
        shapes = _filled(plans, sizes, notes, named)
        if shapes not in seen:
            seen.append(shapes)
            yield shapes


def _usual(port: Port, plan: Sequence[int | None]) -> tuple[int, ...]:
    """Return the sizes to try: images have two open axes, and a few channels."""
    fixed = [size for size in port.shape if size is not None]
    if len(plan) > 4:
        return _VOLUMES
    channels = not fixed or any(size in (1, 3, 4) for size in fixed)
    image = len(plan) == 4 or (
        len(plan) == 3 and channels and list(plan).count(None) == 2
    )
    return _IMAGES if image else _LENGTHS


def _filled(
    plans: _Plans,
    sizes: Mapping[str, int],
    notes: Mapping[str, Any] | None = None,
    named: Mapping[Any, int] | None = None,
) -> dict[str, Shape]:
    """Put sizes where there are none yet."""
    filled = {}
    for name, plan in plans.items():
        own = (notes or {}).get(name, ())
        axes = itertools.zip_longest(plan, own[: len(plan)], fillvalue="")
        filled[name] = tuple(
            int((named or {}).get(note, sizes.get(name, 1)) if size is None else size)
            for size, note in axes
        )
    return filled


def _attempt(path: pathlib.Path, interface: Interface, shapes: Shapes) -> None:
    """Run a file once at some sizes.

    Raises:
        RuntimeError: If it does not run, or its outputs are not of the sizes that the
            file has for them.
    """
    values = draw(path, interface.inputs, shapes)
    with isolated(path, timeout=PATIENCE) as runtime:
        results = runtime.run(values)
    for port in interface.outputs:
        found = results[port.name].shape if port.name in results else port.shape
        same = not port.shape or len(found) == len(port.shape)
        if not same or any(
            own not in (None, size)
            for own, size in zip(port.shape, found, strict=False)
        ):
            raise RuntimeError(f"the output {port} comes out as {found}")


def draw(
    path: pathlib.Path, ports: Sequence[Port], shapes: Shapes
) -> interpreters.Arrays:
    """Draw inputs of these shapes, the same ones each time.

    Raises:
        RuntimeError: If an input takes what is no number.
    """
    check_numbers(path, ports)
    _check_size(path, ports, shapes)
    return {
        port.name: interpreters.values([*shapes[port.name]], port.dtype)
        for port in ports
    }


def check_numbers(path: pathlib.Path, ports: Sequence[Port]) -> None:
    """Raise RuntimeError if an input takes what is no number."""
    if strange := [port for port in ports if not _is_number(port.dtype)]:
        raise RuntimeError(
            f"The input {strange[0]} of '{path}' takes no numbers, which are all that "
            "is drawn for a file. Export the part of the network behind it."
        )


def _check_size(path: pathlib.Path, ports: Sequence[Port], shapes: Shapes) -> None:
    """Refuse sizes that would fill the memory, as damaged files have them."""
    for port in ports:
        values = math.prod(shapes[port.name])
        if values > _LARGEST:
            raise RuntimeError(
                f"The input {port} of '{path}' would be {values:,} values, and more "
                f"than {_LARGEST:,} are not drawn. The file may be damaged; for sizes "
                "that it leaves open pass smaller ones by input_shapes= or --shape."
            )


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biufcV"
    except TypeError:  # As of TFLite's strings, 4-bit numbers and resources.
        return False


def _sizes(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
