"""What a saved config says of a ticket, checked before a ticket is made of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_tickets._util.registry import PACKAGE
from keras_tickets.kernels import Selection, find_kernels
from keras_tickets.masks.masked_layer import masked_layers

FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "model": (Mapping,),
    "pruner": (Mapping, type(None)),
    "kernels": (list, tuple),
    "skipped": (list, tuple),
    "remember": (bool,),
    "provenance": (Mapping, type(None)),
    "drawn_from": (int, type(None)),
    "initial_sparsity": (float, int),
}
OLDER = {
    "remember": False,
    "provenance": None,
    "drawn_from": None,
    "initial_sparsity": 0.0,
}
"""What tickets that version 0.1 saved do not say."""

_DEEPEST = 64


def checked(config: Any) -> dict[str, Any]:
    """Return the fields of a ticket's config.

    Raises:
        ValueError: If one is missing, unknown or of another type.
    """
    if not isinstance(config, Mapping):
        raise ValueError(damaged(f"it is {str(config)[:80]!r}, no table of fields"))
    found = {**OLDER, **config}
    for name in sorted(found.keys() ^ FIELDS.keys(), key=str):
        why = "is missing" if name in FIELDS else "is none of its fields"
        raise ValueError(damaged(f"{str(name)[:80]!r} {why}"))
    for name, kinds in FIELDS.items():
        if not isinstance(found[name], kinds):
            raise ValueError(damaged(f"{name!r} is {str(found[name])[:80]!r}"))
    if not 0.0 <= found["initial_sparsity"] <= 1.0:
        raise ValueError(damaged(f"{found['initial_sparsity']!r} is no sparsity"))
    if found["model"].get("registered_name") == f"{PACKAGE}>Ticket":
        raise ValueError(damaged("its model is a ticket itself"))
    with damage_named():
        check_depth(found["provenance"])
    return found


def selection_in(config: Mapping[str, Any], model: keras.Model) -> Selection:
    """Return which kernels of `model` a config masks.

    Raises:
        ValueError: If it names others than those that the model has, or one twice.
    """
    found = find_kernels(model)
    with damage_named():
        skipped = [check_pair(pair) for pair in config["skipped"][: len(found) + 1]]
        named = (*config["kernels"], *(position for position, _ in skipped))
        check_positions(named, len(found))
        own = tuple(found[position] for position in config["kernels"])
        held = {
            id(kernel.variable): layer.name
            for layer in masked_layers(model)
            for kernel in layer.mask_set.kernels
        }
        for kernel in own:
            if id(kernel.variable) in held:
                inside = held[id(kernel.variable)]
                raise ValueError(f"{kernel.path!r} is masked by {inside!r} already")
    return Selection(own, tuple((found[i], reason) for i, reason in skipped))


def check_positions(given: Sequence[Any], number: int) -> None:
    """Raise unless `given` are positions of `number` kernels, each at most once.

    Raises:
        ValueError: Naming the first that is not.
    """
    if len(given) > number:
        raise ValueError(f"{len(given)} kernels are named, but the model has {number}")
    known: set[int] = set()
    for position in given:
        if type(position) is not int or not 0 <= position < number:
            raise ValueError(
                f"{str(position)[:80]!r} is the position of no kernel: expected 0 to "
                f"{number - 1}, as the model has {number} kernels"
            )
        if position in known:
            raise ValueError(f"the kernel at position {position} is named twice")
        known.add(position)


def check_pair(pair: Any) -> tuple[int, str]:
    """Return a position and a reason.

    Raises:
        ValueError: If `pair` is something else.
    """
    if not isinstance(pair, list | tuple) or [type(x) for x in pair] != [int, str]:
        raise ValueError(f"expected a position and a reason, not {str(pair)[:80]}")
    return pair[0], pair[1]


def check_depth(value: Any) -> None:
    """Raise if JSON is nested too deep for what works on it.

    Raises:
        ValueError: If it is.
    """
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return
    raise ValueError(f"it is nested more than {_DEEPEST} deep")


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """Say of what is raised in the block that the config is damaged."""
    try:
        yield
    except RecursionError as error:
        raise ValueError(damaged("it is nested too deep")) from error
    except ValueError as error:
        raise ValueError(damaged(str(error))) from error


def damaged(why: str) -> str:
    """Return what to say of a config that no ticket can be made of."""
    return (
        f"The config of a ticket is damaged: {why}. Expected what ticket.get_config() "
        "returns, as ticket.save() stores it; copy or save the file again."
    )
