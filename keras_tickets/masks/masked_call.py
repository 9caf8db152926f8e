"""The one implementation of a masked layer, shared by `Ticket` and `Masked`.

The inner layer runs inside a public `keras.StatelessScope` in which every one of its
variables is mapped: a pruned kernel to `where(mask, kernel, 0)`, anything else to its
value. What the inner layer assigned (BatchNorm statistics, seeds) is written back
after the call; a pruned kernel never is. So the inner layer needs no cooperation, a
dead weight has exactly zero gradient, and any save between two steps is sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import Companion


@dataclass(frozen=True, eq=False)
class MaskedKernel:
    """A kernel, the boolean variable that masks it, and maybe a companion.

    Args:
        kernel: The kernel.
        mask: `True` = kept.
        companion: What else enters the forward pass, for a pruner that needs it.
    """

    kernel: Kernel
    mask: keras.Variable
    companion: Companion | None = None

    def effective(self) -> Any:
        """Return the kernel as the forward pass sees it: `where(mask, kernel, 0)`."""
        # `.value`, not the variable: JAX can not trace a Variable inside `where`.
        value, mask = self.kernel.variable.value, self.mask.value
        if self.companion is None:
            return ops.where(mask, value, 0)
        return self.companion.effective(value, mask)


def state_variables(inner: keras.Layer) -> list[keras.Variable]:
    """Return all that a call of `inner` may read or assign, each variable once."""
    found = list(inner.variables)
    for layer in keras_private.sublayers(inner):
        if not isinstance(layer, keras.Model):  # a model's metrics belong to its fit
            found.extend(layer.metrics_variables)
        if getattr(layer, "stateful", False) and hasattr(layer, "states"):
            found.extend(keras.tree.flatten(layer.states))
    unique = {id(v): v for v in found if isinstance(v, keras.Variable)}
    return list(unique.values())


def other_variables(
    inner: keras.Layer, kernels: Sequence[Kernel]
) -> list[keras.Variable]:
    """Return the state variables of `inner` that are none of `kernels`."""
    given = {id(kernel.variable) for kernel in kernels}
    return [v for v in state_variables(inner) if id(v) not in given]


class MaskedCall:
    """Calls `inner` on behalf of `host` with its kernels masked.

    Args:
        host: The layer whose `call` this is; losses are added to it.
        inner: The built layer or model to run.
        masked: The kernels of `inner` to mask, with their masks.
        stand_ins: Variables read and written in place of variables of `inner`, by
            `id` (the seeds, which Keras leaves out of a checkpoint).
    """

    def __init__(
        self,
        host: keras.Layer,
        inner: keras.Layer,
        masked: Sequence[MaskedKernel],
        stand_ins: Mapping[int, keras.Variable] | None = None,
    ) -> None:
        self.host = host
        self.inner = inner
        self.masked = tuple(masked)
        self.others = other_variables(inner, [m.kernel for m in masked])
        held = stand_ins or {}
        self.holders = [held.get(id(v), v) for v in self.others]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return `inner(*args, **kwargs)` computed with the effective kernels."""
        # JAX purges values while it traces and the inner scope does not fall through
        # to the outer one, so a variable left out of the mapping would read as None.
        kernels = [(m.kernel.variable, m.effective()) for m in self.masked]
        state = [
            (variable, holder.value)
            for variable, holder in zip(self.others, self.holders, strict=True)
        ]
        scope = keras.StatelessScope(state_mapping=kernels + state, collect_losses=True)
        given = [scope.get_current_value(v) for v in self.others]
        with scope:
            outputs = self.inner(*args, **kwargs)
        self._write_back(scope, given)
        self._add_losses(scope, kernels)
        return outputs

    def _write_back(self, scope: keras.StatelessScope, given: Sequence[Any]) -> None:
        for variable, holder, before in zip(
            self.others, self.holders, given, strict=True
        ):
            after = scope.get_current_value(variable)
            if after is not before:
                holder.assign(after)

    def _add_losses(
        self,
        scope: keras.StatelessScope,
        kernels: Sequence[tuple[keras.Variable, Any]],
    ) -> None:
        for loss in keras_private.collected_losses(scope):
            # A new tensor: JAX matches losses to layers by identity, and the same
            # tensor in the inner and the outer layer would count twice.
            self.host.add_loss(loss * 1)
        for m in self.masked:
            for loss in m.companion.losses() if m.companion else ():
                self.host.add_loss(loss)
        for variable, effective in kernels:
            if variable.regularizer is not None:
                # Keras regularises the stored kernel; the masked model has the
                # effective one. The difference term makes dead weights weigh nothing.
                self.host.add_loss(
                    variable.regularizer(effective)
                    - variable.regularizer(variable.value)
                )


@dataclass(frozen=True)
class Count:
    """How many weights there are and how many of them are kept (not zero)."""

    total: int
    kept: int

    @property
    def zeros(self) -> int:
        """How many weights are zero."""
        return self.total - self.kept

    @property
    def sparsity(self) -> float:
        """The fraction of the weights that are zero."""
        return self.zeros / self.total if self.total else 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.total + other.total, self.kept + other.kept)


def count(arrays: Sequence[Any]) -> Count:
    """Count the weights and the non-zeros of masks or kernels.

    Every sparsity this package states (logs, summary, strip, export) is this one
    measurement.

    Example:
    >>> count([np.array([[True, False], [False, False]])]).sparsity
    0.75
    """
    counts = (
        Count(np.size(value), int(np.count_nonzero(value)))
        for value in map(np.asarray, arrays)
    )
    return sum(counts, Count(0, 0))


class MaskSet:
    """The masked kernels that a pruner works on, whoever holds the masks.

    Args:
        masked: Kernels and masks, in the model's order.
        flags: Boolean scalars, one for each holder, that say whether the masks were
            ever drawn.
    """

    def __init__(
        self, masked: Sequence[MaskedKernel], flags: Sequence[keras.Variable]
    ) -> None:
        self.masked = tuple(masked)
        self.flags = tuple(flags)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that are masked."""
        return tuple(m.kernel for m in self.masked)

    @property
    def drawn(self) -> bool:
        """Whether every mask was drawn at least once."""
        return all(bool(ops.convert_to_numpy(flag.value)) for flag in self.flags)

    def values(self) -> list[np.ndarray]:
        """Return the masks as boolean arrays."""
        return [ops.convert_to_numpy(m.mask.value) for m in self.masked]

    def assign(self, masks: Sequence[np.ndarray]) -> None:
        """Replace all masks and mark the set as drawn."""
        for m, value in zip(self.masked, masks, strict=True):
            m.mask.assign(value)
        for flag in self.flags:
            flag.assign(True)

    def count(self) -> Count:
        """Count kept and total weights over all masks."""
        return count(self.values())


def add_masks(
    host: keras.Layer,
    kernels: Sequence[Kernel],
    companion: Callable[[Any, Kernel, int], Companion | None] = lambda *kernel: None,
) -> MaskSet:
    """Give `host` a mask for each kernel, all `True`, a companion, and `drawn`."""
    masked = [
        MaskedKernel(
            kernel,
            host.add_weight(
                shape=kernel.shape,
                initializer="ones",
                dtype="bool",
                trainable=False,
                name=kernel.path.replace("/", "_") + "_mask",
            ),
            companion(host, kernel, position),
        )
        for position, kernel in enumerate(kernels)
    ]
    drawn = host.add_weight(
        shape=(), initializer="zeros", dtype="bool", trainable=False, name="drawn"
    )
    return MaskSet(masked, [drawn])
