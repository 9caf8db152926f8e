"""Which tensor of the file is which of the model: by name, never by luck."""

from __future__ import annotations

import re
from typing import Any

import keras
from keras import tree

from keras_tickets.backend.keras_private import sublayers


def aliases(structure: Any, own_names: list[str | None]) -> list[list[str]]:
    """Return the names under which a file may know each tensor of a structure.

    Args:
        structure: A nested structure, such as a model's outputs.
        own_names: For each leaf, the name that it carries itself.

    Returns:
        For each leaf: its own name, and the last dict key on the way to it.
    """
    known = []
    for (path, _), own in zip(
        tree.flatten_with_path(structure), own_names, strict=True
    ):
        keys = [step for step in path if isinstance(step, str)]
        known.append([name for name in (own, *keys[-1:]) if name])
    return known


def of_outputs(model: keras.Model) -> dict[int, str]:
    """Return the names of a model's outputs, by position among its leaves.

    A dict names its entries itself; else an output has the name of the layer that it
    comes from. Where names repeat, or a subclassed model has none: none.
    """
    names = list(getattr(model, "output_names", None) or [])
    leaves = tree.flatten(getattr(model, "output", None)) if names else []
    if len(names) != len(leaves) or len(set(names)) != len(names):
        return {}
    return dict(enumerate(names))


def match(what: str, file_names: list[str], known: list[list[str]]) -> dict[str, int]:
    """Find which of the model's tensors each name of the file stands for.

    Args:
        what: `"input"` or `"output"`, for the error.
        file_names: The names in the file.
        known: For each tensor of the model, its possible names.

    Returns:
        Name in the file -> position among the model's tensors. A model's tensor
        that the file does not need may be missing.

    Raises:
        RuntimeError: If neither names nor the count tell which is which.
    """
    by_name = {name: i for i, names in enumerate(known) for name in names}
    found = {name: by_name[name] for name in file_names if name in by_name}
    if len(set(found.values())) < len(found):
        found = {}
    # The converters number what has no name ('output_0', 'Identity_1:0') in the
    # model's own order; but a list sorted by name has output_10 before output_2.
    rest = sorted((n for n in file_names if n not in found), key=_number)
    free = [i for i in range(len(known)) if i not in found.values()]
    if not rest or len(rest) == len(free):
        return found | dict(zip(rest, free, strict=False))
    raise RuntimeError(
        f"The file's {what}s {file_names} cannot be matched with the model's "
        f"{what}s {[' / '.join(names) or '(no name)' for names in known]}. "
        f"Give each {what} of the model a name of its own."
    )


def _number(name: str) -> int:
    """Return the number at the end of a generated name; 0 if there is none."""
    digits = re.findall(r"_(\d+)(?::\d+)?$", name)
    return int(digits[0]) if digits else 0


def layer_of(model: keras.Model, scope: str) -> str:
    """Return the layer that an operator of a converted file comes from.

    Args:
        model: The model that was converted.
        scope: The operator's name in TensorFlow, such as
            `"model_1/block_1/dense_2/MatMul"`: names of nested layers, to each of which
            TensorFlow may have added a number.

    Returns:
        Such as `"block/dense_2"`; `scope` itself where no layer is found.
    """
    known = {layer.name for layer in sublayers(model)}
    *steps, _ = scope.split("/")
    found = [
        next((n for n in (step, re.sub(r"_\d+$", "", step)) if n in known), None)
        for step in steps
    ]
    return "/".join(name for name in found if name and name != model.name) or scope
