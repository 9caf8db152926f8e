"""Which kernels are pruned: filters, and what is left out by default."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import keras

from keras_tickets.backend import keras_private
from keras_tickets.kernels.discovery import find_kernels
from keras_tickets.kernels.exclusions import why_not
from keras_tickets.kernels.kernel import Kernel

Filter: TypeAlias = (
    "str | keras.Layer | keras.Variable | Callable[[Kernel], bool] | ModelFilter"
)


class ModelFilter(Protocol):
    """A filter that looks at the whole model first, such as `kt.mobile.eligible`."""

    def within(self, model: Any) -> Callable[[Kernel], bool]:
        """Return the filter for the kernels of `model`."""


@dataclass(frozen=True)
class Selection:
    """What will be pruned, and what will not with the reason."""

    kernels: tuple[Kernel, ...]
    skipped: tuple[tuple[Kernel, str], ...]


def choose_kernels(
    model: keras.Layer,
    only: Filter | Iterable[Filter] | None = None,
    skip: Filter | Iterable[Filter] | None = None,
    held: Sequence[Kernel] = (),
) -> Selection:
    """Decide which kernels of `model` are pruned.

    Args:
        model: A built layer or model.
        only: Prune nothing but this: a regular expression searched in the display
            path, a path or layer name, a layer, a variable, a function of a
            `Kernel`, a `ModelFilter`, or a list of these. What is named exactly is
            pruned even where the default would leave it, or raises when it cannot be.
        skip: Leave this alone; the same forms.
        held: Kernels that are masked already and not up for choice.

    Raises:
        TypeError: If a filter is none: a number, or a class.
        ValueError: If a filter matches nothing, if `only` names what cannot be
            pruned, or if nothing is left to prune.
    """
    masked = {id(kernel.variable) for kernel in held}
    candidates = [k for k in find_kernels(model) if id(k.variable) not in masked]
    wanted = _matches(model, candidates, only, "only")
    unwanted = _matches(model, candidates, skip, "skip")
    kernels, skipped = [], []
    for kernel in candidates:
        reason = _reason(kernel, wanted, unwanted)
        if reason is None:
            kernels.append(kernel)
        else:
            skipped.append((kernel, reason))
    if not kernels and not held:
        raise ValueError(_nothing_to_prune(model, skipped))
    return Selection(tuple(kernels), tuple(skipped))


def _reason(
    kernel: Kernel, wanted: dict[int, str] | None, unwanted: dict[int, str] | None
) -> str | None:
    """Return why `kernel` is left alone, or `None` to prune it."""
    key = id(kernel.variable)
    if unwanted and key in unwanted:
        return "filtered out by skip="
    if wanted is not None and key not in wanted:
        return "filtered out by only="
    row = why_not(kernel)
    how = wanted[key] if wanted else "pattern"
    if row is None:
        return None
    if how == "pattern" or (how == "layer" and not row.by_layer):
        return row.reason
    if row.on_request:
        return None
    raise ValueError(
        f"only= names {kernel.path!r}, which cannot be pruned: {row.reason}. "
        "Take it out of only=, or change the layer before wrapping the model."
    )


def _matches(
    model: keras.Layer,
    candidates: Sequence[Kernel],
    filters: Filter | Iterable[Filter] | None,
    argument: str,
) -> dict[int, str] | None:
    """Return {id(variable): how} for what the filters match; see `_hit`."""
    if filters is None:
        return None
    matched: dict[int, str] = {}
    items: list[Any] = [filters]
    if isinstance(filters, Iterable) and not isinstance(
        filters, str | keras.Layer | keras.Variable
    ):
        items = list(filters)
    for item in items:
        if isinstance(item, type):
            raise TypeError(_is_a_class(item, argument))
        item = item.within(model) if hasattr(item, "within") else item
        hits = {id(k.variable): how for k in candidates if (how := _hit(k, item))}
        if not hits:
            raise ValueError(_matched_nothing(candidates, item, argument))
        for key, how in hits.items():
            # "variable" and "layer" are exact names and weigh more than a pattern.
            matched[key] = max(matched.get(key, "pattern"), how, key=_HOW.index)
    return matched


_HOW = ("pattern", "layer", "variable")


def _hit(kernel: Kernel, item: Any) -> str | None:
    """Return how a filter matches, one of `_HOW`, or `None` if it does not."""
    if isinstance(item, str):
        if item == kernel.path:
            return "variable"
        if item in (kernel.layer.name, kernel.layer.path):
            return "layer"
        return "pattern" if re.search(item, kernel.path) else None
    if isinstance(item, keras.Variable):
        return "variable" if item is kernel.variable else None
    if isinstance(item, keras.Layer):
        if item is kernel.layer:
            return "layer"
        below = any(layer is kernel.layer for layer in keras_private.sublayers(item))
        return "pattern" if below else None
    if callable(item):
        return "pattern" if item(kernel) else None
    raise TypeError(
        "A filter is a regular expression, a path, a layer, a variable or a function "
        f"of a Kernel. Received: {item!r} of type {type(item).__name__}"
    )


def _is_a_class(item: type, argument: str) -> str:
    name = item.__name__
    if hasattr(item, "within"):
        return (
            f"{argument}= is the class {name}, and no filter yet. Expected what it "
            f"makes: {argument}={name}()."
        )
    return (
        f"{argument}= is the class {name}. Expected a regular expression, a path, a "
        "layer, a variable or a function of a Kernel; for all layers of a class: "
        f"{argument}=lambda kernel: isinstance(kernel.layer, {name})."
    )


def _matched_nothing(candidates: Sequence[Kernel], item: Any, argument: str) -> str:
    paths = [kernel.path for kernel in candidates]
    near = difflib.get_close_matches(str(item), paths, n=3, cutoff=0.3) or paths[:3]
    return (
        f"{argument}={item!r} matches none of the {len(paths)} weight matrices of "
        f"this model. Expected a path such as {near}, a layer name, or a regular "
        "expression that is found in a path."
    )


def _nothing_to_prune(model: keras.Layer, skipped: Sequence[tuple[Kernel, str]]) -> str:
    reasons = "".join(f"\n  {k.path} {k.shape}: {why}" for k, why in skipped[:20])
    return (
        f"Nothing to prune in {type(model).__name__} {model.name!r}: expected at "
        "least one trainable floating-point weight of rank two or more."
        + (f" What it has is left alone:{reasons}" if reasons else "")
        + "\nName a layer in only= to prune it all the same, or unfreeze it."
    )
