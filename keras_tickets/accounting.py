"""What a model costs: operations for one sample, and bytes.

Two costs of a sparse model are told apart. The *sparse* cost counts the weights that
are kept, as papers do; a runtime has it only where it skips zeros. The *executed* cost
is what Keras computes: a masked kernel is multiplied as a dense one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_tickets.masking import count
from keras_tickets.prunable import Kernel, find_kernels
from keras_tickets.schedules import Run
from keras_tickets.tables import render
from keras_tickets.ticket import Ticket
from keras_tickets.uses import uses


@dataclass(frozen=True)
class KernelCost:
    """What one kernel costs for one sample.

    Args:
        path: The kernel's display path.
        weights: How many weights it has.
        kept: How many of them are not masked.
        uses: How often each weight is multiplied.
        channels: How many numbers come out at each position.
    """

    path: str
    weights: int
    kept: int
    uses: int
    channels: int

    @property
    def outputs(self) -> int:
        """How many numbers the kernel produces."""
        return self.uses * self.channels

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of the dense kernel."""
        return self.weights * self.uses

    @property
    def sparse_macs(self) -> int:
        """Multiply-accumulate operations with the kept weights only."""
        return self.kept * self.uses

    @property
    def dense(self) -> int:
        """Operations of the dense kernel."""
        return 2 * self.macs + self.outputs

    @property
    def sparse(self) -> int:
        """Operations with the kept weights only.

        For each output, `v` multiplications and `v - 1` additions over the `v` weights
        that reach it, one addition of the bias, one multiplication of the activation.
        """
        return 2 * self.sparse_macs + self.outputs

    @property
    def bytes(self) -> float:
        """Bytes in float32, with a bias for each channel.

        Where a weight is missing, a bit for each says which.
        """
        bits = self.weights if self.kept < self.weights else 0
        return 4 * self.kept + bits / 8 + 4 * (self.channels if self.uses else 0)


@dataclass(frozen=True)
class Cost:
    """What a model costs for one sample. Prints as a table.

    Args:
        name: The model's name.
        kernels: A row for each kernel.
        parameters: All parameters of the model, prunable or not.
        pruner: The pruner's name, or `""`.
        trained: Operations for one sample in one training step, forward and backward,
            averaged over the run, by the paper's formula; `None` if they depend on a
            length of the run that was not given.
    """

    name: str
    kernels: tuple[KernelCost, ...]
    parameters: int
    pruner: str = ""
    trained: float | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of the dense model."""
        return sum(kernel.macs for kernel in self.kernels)

    @property
    def sparse_macs(self) -> int:
        """Multiply-accumulate operations with the kept weights only."""
        return sum(kernel.sparse_macs for kernel in self.kernels)

    @property
    def dense(self) -> int:
        """Operations of the dense model: what Keras executes, masked or not."""
        return sum(kernel.dense for kernel in self.kernels)

    @property
    def sparse(self) -> int:
        """Operations with the kept weights only."""
        return sum(kernel.sparse for kernel in self.kernels)

    @property
    def bytes(self) -> float:
        """Bytes of the kernels in float32; see `KernelCost.bytes`."""
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def dense_bytes(self) -> float:
        """Bytes of the dense kernels and a bias for each channel, in float32."""
        return sum(
            KernelCost(k.path, k.weights, k.weights, k.uses, k.channels).bytes
            for k in self.kernels
        )

    def __str__(self) -> str:
        return _table(self)


def flops(
    model: keras.Model,
    *,
    input_signature: Any = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    print_fn: Callable[[str], object] | None = print,
) -> Cost:
    """Print what a ticket, or any built Keras model, costs for one sample.

    Counted are the products of kernels: dense, convolution (also transposed,
    depthwise, separable), einsum and attention projections, recurrent. Attention's
    products of activations, pooling and normalisation are not.

    Args:
        model: A ticket, drawn or not, or a built model.
        input_signature: The inputs, as for `keras_tickets.export`, where the model
            leaves their size open.
        epochs: Length of the run, for pruners whose schedule is not given in
            fractions of it.
        steps_per_epoch: Likewise.
        print_fn: Where the table goes; `None` prints nothing.

    Returns:
        A `Cost`: operations and bytes, dense and sparse, by kernel and in all.

    Raises:
        ValueError: If the size of an input is not known.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.RigL(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> cost = kt.flops(ticket, print_fn=None)
    >>> cost.macs, cost.sparse_macs
    (32, 8)

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020, whose
        published figures these are.
    """
    ticket = model if isinstance(model, Ticket) else None
    inner = ticket.model if ticket else model
    found = find_kernels(inner)
    masks: dict[int, np.ndarray] = {}
    if ticket is not None:
        values = zip(ticket.kernels, ticket.mask_set.values(), strict=True)
        masks = {id(kernel.variable): mask for kernel, mask in values}
    rows = tuple(
        KernelCost(
            kernel.path,
            kernel.size,
            count([masks[id(kernel.variable)]]).kept
            if id(kernel.variable) in masks
            else kernel.size,
            times,
            _channels(kernel),
        )
        for kernel, times in zip(
            found, uses(inner, found, input_signature), strict=True
        )
    )
    cost = Cost(inner.name, rows, inner.count_params())
    if ticket is not None and ticket.pruner is not None:
        run = _run(ticket.pruner.schedule.unit, epochs, steps_per_epoch)
        trained = (
            ticket.pruner.training_flops(cost.dense, cost.sparse, run) if run else None
        )
        pruner = type(ticket.pruner).__name__
        cost = Cost(cost.name, rows, cost.parameters, pruner, trained)
    if print_fn is not None:
        print_fn(str(cost))
    return cost


def _channels(kernel: Kernel) -> int:
    """Return how many numbers one use of the whole kernel produces."""
    if "depthwise" in f"{type(kernel.layer).__name__}{kernel.variable.name}".lower():
        return math.prod(kernel.shape[-2:])
    return kernel.extent(kernel.view.outputs)


def _run(unit: str, epochs: int | None, steps: int | None) -> Run | None:
    """Return the run that a schedule is averaged over."""
    if epochs is not None:
        return Run(epochs, steps)
    return Run(1000, 1) if unit == "fraction" else None


def _table(cost: Cost) -> str:
    import rich.box
    import rich.table

    table = rich.table.Table(
        title=f"{cost.name}: operations for one sample",
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("kernel", overflow="fold")
    for column in ("weights", "kept", "dense", "sparse", "bytes"):
        table.add_column(column, justify="right")
    for kernel in cost.kernels:
        table.add_row(kernel.path, *_cells(kernel.weights, kernel.kept, kernel))
    table.add_section()
    weights = sum(kernel.weights for kernel in cost.kernels)
    kept = sum(kernel.kept for kernel in cost.kernels)
    table.add_row("all kernels", *_cells(weights, kept, cost))
    lines = [
        render(table, width=100),
        f"Inference: {cost.sparse / cost.dense:.4f} of dense where zeros are skipped; "
        "Keras executes it dense.",
    ]
    if cost.pruner:
        lines.append(_training(cost))
    return "\n".join(lines)


def _training(cost: Cost) -> str:
    name = f"Training with {cost.pruner}"
    if cost.trained is None:
        return (
            f"{name}: depends on the length of the run; pass epochs= and "
            "steps_per_epoch=."
        )
    share = cost.trained / (3 * cost.dense)
    return (
        f"{name}: {share:.4f} of dense by the paper's formula. Executed is 1: masked "
        "training multiplies dense kernels and is not faster."
    )


def _cells(weights: int, kept: int, cost: Any) -> tuple[str, ...]:
    return (
        f"{weights:,}",
        f"{kept:,}",
        f"{cost.dense:,}",
        f"{cost.sparse:,}",
        f"{math.ceil(cost.bytes):,}",
    )
