"""Which variables of a model can be pruned, and why the others cannot.

A prunable weight is a trainable floating-point variable of rank two or more that no
row of `EXCLUSIONS` names. Kernels are found by variable, never by a list of layer
classes, so a layer that this package has not heard of is pruned like any other.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import keras
import numpy as np

from keras_tickets.backend import keras_private

Filter: TypeAlias = (
    "str | keras.Layer | keras.Variable | Callable[[Kernel], bool] | ModelFilter"
)


class ModelFilter(Protocol):
    """A filter that looks at the whole model first, such as `kt.mobile.eligible`."""

    def within(self, model: Any) -> Callable[[Kernel], bool]:
        """Return the filter for the kernels of `model`."""


@dataclass(frozen=True)
class MatmulView:
    """A kernel seen as `taps` matrices of `inputs` x `outputs`.

    Each field holds axes of the kernel: the axes summed over (`inputs`), the axes
    that stay (`outputs`) and the positions of a convolution window (`taps`).
    """

    taps: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """All axes, in the order of the fields."""
        return (*self.taps, *self.inputs, *self.outputs)

    def unfold(self, array: np.ndarray) -> np.ndarray:
        """Return a kernel's values as taps x inputs x outputs.

        Example:
        >>> heads = MatmulView((), (0,), (1, 2))
        >>> heads.unfold(np.zeros((8, 2, 3))).shape
        (1, 8, 6)
        """
        shape = [
            math.prod(array.shape[axis] for axis in axes)
            for axes in (self.taps, self.inputs, self.outputs)
        ]
        return array.transpose(self.axes).reshape(shape)

    def fold(self, matrices: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return what `unfold` made of an array of `shape` in that shape again."""
        parts = matrices.reshape([shape[axis] for axis in self.axes])
        return parts.transpose(np.argsort(self.axes))


@dataclass(frozen=True, eq=False)
class Kernel:
    """A weight variable, the layer that owns it and a display path.

    Identity is the variable; `path` is made unique inside its model and is meant for
    people, filters and reports.
    """

    variable: keras.Variable
    layer: keras.Layer
    path: str
    trainable: bool = True
    rewritten: bool = field(default=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        """How many weights the variable holds."""
        return math.prod(self.shape)

    @cached_property
    def view(self) -> MatmulView:
        """The axes of the matrix products that this kernel takes part in."""
        if _is_depthwise(self):  # each input has outputs of its own
            axes = tuple(range(len(self.shape)))
            return MatmulView(axes[:-2], (), axes[-2:])
        return matmul_view(self.layer, len(self.shape))

    def extent(self, axes: Sequence[int]) -> int:
        """Return the product of the sizes of `axes`."""
        return math.prod(self.shape[axis] for axis in axes)


def matmul_view(layer: keras.Layer, rank: int) -> MatmulView:
    """Return which axes of a `layer`'s kernel are taps, inputs and outputs."""
    axes = tuple(range(rank))
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, result = re.split(",|->", layer.equation)
        letters = kernel.replace("...", "")
        stays = tuple(axis for axis in axes if letters[axis] in result)
        summed = tuple(axis for axis in axes if letters[axis] not in result)
        return MatmulView((), summed, stays)
    if re.search(r"Conv\d?D?Transpose", type(layer).__name__):
        return MatmulView(axes[:-2], axes[-1:], axes[-2:-1])
    return MatmulView(axes[:-2], axes[-2:-1], axes[-1:])


@dataclass(frozen=True)
class Exclusion:
    """One reason to leave a variable alone.

    Args:
        reason: What the report says.
        matches: Whether the reason holds for a kernel.
        on_request: Whether naming the variable or its layer in `only=` prunes it all
            the same; if not, naming it raises.
        by_layer: Whether naming the layer is enough for that.
    """

    reason: str
    matches: Callable[[Kernel], bool]
    on_request: bool = False
    by_layer: bool = True


def _name(pattern: str) -> Callable[[Kernel], bool]:
    return lambda kernel: re.search(pattern, kernel.variable.name) is not None


def _layer(pattern: str) -> Callable[[Kernel], bool]:
    return lambda kernel: re.search(pattern, type(kernel.layer).__name__) is not None


def _either(*tests: Callable[[Kernel], bool]) -> Callable[[Kernel], bool]:
    return lambda kernel: any(test(kernel) for test in tests)


_is_depthwise = _either(_layer(r"^DepthwiseConv"), _name(r"^depthwise_kernel$"))


def _is_quantised(kernel: Kernel) -> bool:
    return getattr(kernel.layer, "quantization_mode", None) is not None


def _has_lora(kernel: Kernel) -> bool:
    return bool(getattr(kernel.layer, "lora_enabled", False))


EXCLUSIONS: list[Exclusion] = [
    Exclusion("quantised: prune before quantising", _is_quantised),
    Exclusion("LoRA is enabled on the layer: prune before enable_lora", _has_lora),
    Exclusion("frozen: trainable is False", lambda kernel: not kernel.trainable),
    Exclusion(
        "not a floating-point variable",
        lambda kernel: "float" not in str(kernel.variable.dtype),
    ),
    Exclusion(
        "rewritten by SpectralNormalization in every step",
        lambda kernel: kernel.rewritten,
    ),
    Exclusion("bias", _name(r"bias$"), on_request=True, by_layer=False),
    Exclusion(
        "normalisation",
        _either(_layer(r"Normalization$"), _name(r"^(gamma|beta)$")),
        on_request=True,
    ),
    Exclusion("activation parameter", _layer(r"^PReLU$"), on_request=True),
    Exclusion(
        "embedding or position table",
        _either(
            _layer(r"Embedding$"),
            _name(r"(^|_)(pos|position|positional)(_|$)|embeddings?$|^(cls|class)_tok"),
        ),
        on_request=True,
    ),
    Exclusion("depthwise kernel", _is_depthwise, on_request=True),
]
"""Why a variable is left alone, first match wins. Append a row to extend it."""


@dataclass(frozen=True)
class Selection:
    """What will be pruned, and what will not with the reason."""

    kernels: tuple[Kernel, ...]
    skipped: tuple[tuple[Kernel, str], ...]


def find_kernels(model: keras.Layer) -> list[Kernel]:
    """Return every variable of rank two or more, by owner, each once.

    Args:
        model: A built layer or model.
    """
    layers = keras_private.sublayers(model)
    trainable = {id(variable) for variable in model.trainable_variables}
    spectral = {
        id(layer.layer)
        for layer in layers
        if isinstance(layer, keras.layers.SpectralNormalization)
    }
    owner = owners(layers)
    found: dict[int, Kernel] = {}
    taken: Counter[str] = Counter()
    for layer in layers:
        for variable in keras_private.own_variables(layer):
            key = id(variable)
            is_mask = variable.dtype == "bool"
            if key in found or is_mask or len(variable.shape) < 2:
                continue
            if owner[key] is not layer:
                continue
            taken[variable.path] += 1
            copies = taken[variable.path]
            found[id(variable)] = Kernel(
                variable,
                layer,
                variable.path if copies == 1 else f"{variable.path}#{copies}",
                id(variable) in trainable,
                id(layer) in spectral,
            )
    return list(found.values())


def positions(model: keras.Layer) -> dict[int, int]:
    """Return where each kernel stands in `find_kernels(model)`, by `id` of variable.

    Positions, unlike paths, are those of the same model in another process too.
    """
    return {id(k.variable): i for i, k in enumerate(find_kernels(model))}


def owners(layers: Sequence[keras.Layer]) -> dict[int, keras.Layer]:
    """Return the layer of each variable, by `id`: the innermost that holds it.

    A wrapper may keep its inner layer's kernel under a name of its own.
    """
    owner: dict[int, keras.Layer] = {}
    for layer in layers:
        for variable in keras_private.own_variables(layer):
            outer = owner.setdefault(id(variable), layer)
            if any(inner is layer for inner in keras_private.sublayers(outer)[1:]):
                owner[id(variable)] = layer
    return owner


def why_not(kernel: Kernel) -> Exclusion | None:
    """Return the first exclusion that holds for `kernel`, or `None`."""
    return next((row for row in EXCLUSIONS if row.matches(kernel)), None)


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
        ValueError: If a filter matches nothing, if `only` names what can not be
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
        f"only= names {kernel.path!r}, which can not be pruned: {row.reason}. "
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
