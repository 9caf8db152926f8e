"""The one implementation of a masked layer, shared by `Ticket` and `Masked`.

The inner layer runs inside a public `keras.StatelessScope` in which every one of its
variables is mapped: a pruned kernel to `where(mask, kernel, 0)`, anything else to its
value. What the inner layer assigns (BatchNorm statistics, seeds, a kernel that it
normalizes) goes to the variable at once, see `masks.passing_scope`; of a pruned kernel
the dead weights stay as they are. So the inner layer needs no cooperation, a dead
weight has exactly zero gradient, and any save between two steps is sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets.backend import array_of, keras_private
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import AuxiliaryVariable
from keras_tickets.masks.flag import Flag, Owner
from keras_tickets.masks.passing_scope import PassingScope, Stored
from keras_tickets.masks.wrapped_layers import check_as_wrapped


@dataclass(frozen=True, eq=False)
class MaskedKernel:
    """A kernel, the boolean variable that masks it, and maybe an auxiliary variable.

    Args:
        kernel: The kernel.
        mask: `True` = kept.
        auxiliary: What else enters the forward pass, for a pruner that needs it.
    """

    kernel: Kernel
    mask: keras.Variable
    auxiliary: AuxiliaryVariable | None = None

    def effective(self) -> Any:
        """Return the kernel as the forward pass sees it: `where(mask, kernel, 0)`."""
        # `.value`, not the variable: JAX cannot trace a Variable inside `where`.
        value, mask = self.kernel.variable.value, self.mask.value
        if self.auxiliary is None:
            return ops.where(mask, value, 0)
        return self.auxiliary.effective(value, mask)

    def assign(self, value: Any) -> None:
        """Store what the layer assigns to the kernel; dead weights stay as they are.

        Raises:
            ValueError: If the layer computes with other values than the stored ones.
        """
        if self.auxiliary is not None and self.auxiliary.replaces_values:
            raise ValueError(
                f"Layer {self.kernel.layer.name!r} assigns its weight "
                f"{self.kernel.path!r} when it is called, from what a pruner that "
                "learns masks makes of it: the weight itself would be overwritten. "
                f"Leave it alone, skip={self.kernel.path!r}, or use a pruner that "
                "only masks, such as kt.GradualMagnitude."
            )
        variable = self.kernel.variable
        variable.assign(ops.where(self.mask.value, value, variable.value))


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
        replacements: Variables read and written in place of variables of `inner`, by
            `id` (the seeds, which Keras leaves out of a checkpoint).
    """

    def __init__(
        self,
        host: keras.Layer,
        inner: keras.Layer,
        masked: Sequence[MaskedKernel],
        replacements: Mapping[int, keras.Variable] | None = None,
    ) -> None:
        self.host = host
        self.inner = inner
        self.masked = tuple(masked)
        self.kernels = [m.kernel for m in masked]
        self.replacements = replacements or {}
        self.refresh()

    def refresh(self) -> None:
        """Find the other variables of `inner` anew: a layer may have got more.

        Raises:
            ValueError: If a layer computes with something else than a masked kernel.
        """
        check_as_wrapped(self.kernels)
        self.others = [
            (variable, self.replacements.get(id(variable), variable))
            for variable in other_variables(self.inner, self.kernels)
        ]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return `inner(*args, **kwargs)` computed with the effective kernels.

        Raises:
            ValueError: If a layer computes with something else than a masked kernel.
        """
        check_as_wrapped(self.kernels)
        # JAX purges values while it traces and the inner scope does not fall through
        # to the outer one, so a variable left out of the mapping would read as None.
        stored = [
            *(Stored(m.kernel.variable, m.effective, m.assign) for m in self.masked),
            *(Stored.by(target, variable) for variable, target in self.others),
        ]
        scope = PassingScope(stored)
        with scope:
            outputs = self.inner(*args, **kwargs)
        self._add_losses(scope)
        return outputs

    def _add_losses(self, scope: PassingScope) -> None:
        for loss in keras_private.collected_losses(scope):
            # A new tensor: JAX matches losses to layers by identity, and the same
            # tensor in the inner and the outer layer would count twice.
            self.host.add_loss(loss * 1)
        for m in self.masked:
            for loss in m.auxiliary.losses() if m.auxiliary else ():
                # Keras sums losses as they are, and TensorFlow only those of one
                # dtype: that of the compiled loss.
                self.host.add_loss(ops.cast(loss, keras.config.floatx()))
        for variable in (m.kernel.variable for m in self.masked):
            if variable.regularizer is not None:
                # Keras regularises the stored kernel; the masked model has the
                # effective one. The difference term makes dead weights weigh nothing.
                self.host.add_loss(
                    variable.regularizer(scope.get_current_value(variable))
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
        flags: One for each layer that owns masks: whether they were ever drawn.
    """

    def __init__(self, masked: Sequence[MaskedKernel], flags: Sequence[Flag]) -> None:
        self.masked = tuple(masked)
        self.flags = tuple(flags)
        self.kernels = tuple(m.kernel for m in self.masked)

    @classmethod
    def joined(cls, sets: Sequence[MaskSet]) -> MaskSet:
        """Return the masks of several owners as one set."""
        return cls(
            [m for part in sets for m in part.masked],
            [flag for part in sets for flag in part.flags],
        )

    @property
    def drawn(self) -> bool:
        """Whether every mask was drawn at least once."""
        return all(self.flags)

    def known_drawn(self) -> bool:
        """Return `drawn` while a step is traced too, as far as it is known."""
        return all(flag.known() for flag in self.flags)

    def values(self) -> list[np.ndarray]:
        """Return the masks as boolean arrays."""
        return [ops.convert_to_numpy(m.mask.value) for m in self.masked]

    def assign(self, masks: Sequence[np.ndarray]) -> None:
        """Replace all masks and mark the set as drawn."""
        for m, value in zip(self.masked, masks, strict=True):
            m.mask.assign(value)
        for flag in self.flags:
            flag.set()

    def assign_from(self, other: MaskSet) -> None:
        """Assign the masks of `other`, and whether they were drawn."""
        for own, source in zip(self.masked, other.masked, strict=True):
            own.mask.assign(array_of(source.mask))
        for flag, old in zip(self.flags, other.flags, strict=True):
            flag.set(bool(old))

    def count(self) -> Count:
        """Count kept and total weights over all masks."""
        return count(self.values())


def add_masks(
    host: Owner,
    kernels: Sequence[Kernel],
    auxiliary: Callable[[Kernel, int], AuxiliaryVariable | None] | None = None,
) -> MaskSet:
    """Give `host` a mask for each kernel, all `True`, and the flag `drawn`.

    Args:
        host: The layer that owns the variables.
        kernels: The kernels to mask.
        auxiliary: Returns the auxiliary variable of a kernel at a position.
    """
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
            auxiliary(kernel, position) if auxiliary else None,
        )
        for position, kernel in enumerate(kernels)
    ]
    return MaskSet(masked, [Flag(host, "drawn")])
