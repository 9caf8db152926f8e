"""What a model costs: operations for one sample, and bytes.

Two costs of a sparse model are told apart. The *sparse* cost counts the weights that
are kept, as papers do; a runtime has it only where it skips zeros. The *executed* cost
is what Keras computes: a masked kernel is multiplied as a dense one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_tickets._util.checks import check_model
from keras_tickets._util.layer_traits import is_added
from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import table
from keras_tickets.backend import on_host
from keras_tickets.kernels import find_kernels
from keras_tickets.kernels.usage import uses
from keras_tickets.masks.masked_call import MaskedKernel, count
from keras_tickets.masks.masked_layer import masked_layers, without_masks
from keras_tickets.pruners.base import pruner_of
from keras_tickets.recipe.allocation import Group, round_shares
from keras_tickets.recipe.schedules import Run
from keras_tickets.ticket.ticket import Ticket

CHANCE = 1e-3
"""The fraction of a kernel's weights that may be zero without anyone's doing: uniform
initializers draw one in ten million."""


@dataclass(frozen=True)
class KernelCost:
    """What one kernel costs for one sample.

    Args:
        path: The kernel's display path.
        weights: How many weights it has.
        kept: How many of them are neither masked nor zero.
        uses: How often each weight is multiplied.
        outputs: How many numbers the kernel produces.
    """

    path: str
    weights: int
    kept: int
    uses: int
    outputs: int

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
        """Bytes in float32: of the kept weights, and a bit for each that says which.

        A kernel that misses a few weights by chance is stored whole.
        """
        if self.weights - self.kept <= CHANCE * self.weights:
            return 4 * self.weights
        return 4 * self.kept + self.weights / 8


@dataclass(frozen=True)
class Training:
    """What training by a pruner costs.

    Args:
        pruner: The pruner's name.
        operations: Operations for one sample in one training step, forward and
            backward, averaged over the run, by the paper's formula; `None` if they
            are not known.
        unknown: Why they are not, and what would tell.
    """

    pruner: str
    operations: float | None
    unknown: str = ""


@dataclass(frozen=True, repr=False)
class Cost(Shown):
    """What a model costs for one sample. Prints as a table.

    Args:
        name: The model's name.
        kernels: A row for each kernel.
        biases: How many numbers are added to outputs: biases, and the shifts (beta) of
            normalizations, which become biases where a normalization is folded.
        parameters: All parameters of the model, prunable or not.
        training: What training costs, if the model is a ticket with a pruner.
    """

    name: str
    kernels: tuple[KernelCost, ...]
    biases: int
    parameters: int
    training: Training | None = None

    @property
    def weights(self) -> int:
        """How many weights the kernels have."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def kept(self) -> int:
        """How many of them are neither masked nor zero."""
        return sum(kernel.kept for kernel in self.kernels)

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
        """Bytes of kernels and biases in float32; see `KernelCost.bytes`."""
        return sum(kernel.bytes for kernel in self.kernels) + 4 * self.biases

    @property
    def trained(self) -> float | None:
        """Operations for one sample in one training step; see `Training`."""
        return self.training.operations if self.training else None

    def __str__(self) -> str:
        return _table(self)


def flops(
    model: keras.Model,
    *,
    input_signature: Any = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    verbose: bool = True,
    print_fn: Callable[[str], object] | None = print,
) -> Cost:
    """Print what a ticket, or any built Keras model, costs for one sample.

    Counted are the products of kernels: dense, convolution (also transposed,
    depthwise, separable), einsum and attention projections, recurrent. Attention's
    products of activations, pooling, normalization and what is added or looked up
    (biases, position tables, embeddings) are not.

    Kept are the weights that a mask keeps, in kernels without a mask those that are
    not zero; so a ticket and `ticket.strip()` cost the same.

    Args:
        model: A ticket, drawn or not, a model with `Masked` layers or any built model.
        input_signature: The inputs, as for `keras_tickets.export`, where the model
            leaves their size open.
        epochs: Length of the run, for pruners whose schedule is not given in
            fractions of it.
        steps_per_epoch: Likewise.
        verbose: Whether to print the table.
        print_fn: What prints it; `None` is the same as `verbose=False`.

    Returns:
        A `Cost`: operations and bytes, dense and sparse, by kernel and in all. What
        training costs is stated at the pruner's sparsity, reached or not; it is not
        known before the draw where the scores decide how many weights a kernel keeps.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, or the size of an input is not known.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.RigL(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> cost = kt.flops(ticket, verbose=False)
    >>> cost.macs, cost.sparse_macs
    (32, 8)

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020, whose
        published figures these are.
    """
    check_model(model)
    kernels = _Kernels(model, input_signature)
    variables = without_masks(kernels.model, kernels.model.weights)
    biases = [v for v in variables if is_added(v.name) and id(v) not in kernels.kept]
    cost = Cost(
        kernels.model.name,
        kernels.rows(kernels.kept),
        sum(math.prod(variable.shape) for variable in biases),
        sum(math.prod(variable.shape) for variable in variables),
        _training(model, kernels, epochs, steps_per_epoch),
    )
    if verbose and print_fn is not None:
        print_fn(str(cost))
    return cost


class _Kernels:
    """The kernels of a model: how often each is used, how many weights it keeps.

    Args:
        model: A ticket or any built model.
        signature: Its inputs, or `None`.

    Attributes:
        model: The model, without the ticket around it.
        kept: How many weights each kernel keeps, by `id` of its variable.
    """

    def __init__(self, model: keras.Model, signature: Any) -> None:
        self.model = model.model if isinstance(model, Ticket) else model
        masked = {id(m.kernel.variable): m for m in _masked(model)}
        self._kernels = [
            kernel
            for kernel in find_kernels(self.model)
            if id(kernel.variable) in masked or not is_added(kernel.variable.name)
        ]
        self._uses = uses(self.model, self._kernels, signature)
        self.kept = {
            key: count([on_host(variable.value)]).kept
            for kernel in self._kernels
            for key in [id(kernel.variable)]
            for variable in [masked[key].mask if key in masked else kernel.variable]
        }

    def rows(self, kept: Mapping[int, int]) -> tuple[KernelCost, ...]:
        """Return what each kernel costs if it keeps as many weights as `kept` says."""
        return tuple(
            KernelCost(
                kernel.path,
                kernel.size,
                kept[id(kernel.variable)],
                use.times,
                use.positions * kernel.extent(kernel.view.outputs),
            )
            for kernel, use in zip(self._kernels, self._uses, strict=True)
        )


def _masked(model: keras.Model) -> list[MaskedKernel]:
    """Return the kernels with masks that act in `model`."""
    if isinstance(model, Ticket):
        return list(model.mask_set.masked)
    layers = [layer for layer in masked_layers(model) if not layer.bypass]
    return [masked for layer in layers for masked in layer.mask_set.masked]


def _training(
    model: keras.Model, kernels: _Kernels, epochs: int | None, steps: int | None
) -> Training | None:
    """Return what training costs, if `model` is a ticket with a pruner."""
    pruner = pruner_of(model) if isinstance(model, Ticket) else None
    if pruner is None:
        return None
    name = type(pruner).__name__
    kept = _final(model, kernels.kept)
    if kept is None:
        scores = "the scores decide how many weights each kernel keeps"
        return Training(name, None, f"not known before the draw: {scores}.")
    missing = _missing(pruner.schedule.unit, epochs, steps)
    if missing:
        ask = f"pass {' and '.join(missing)} to kt.flops"
        return Training(name, None, f"depends on the length of the run: {ask}.")
    run = Run(1000, 1) if epochs is None else Run(epochs, steps)
    rows = kernels.rows(kept)
    dense, sparse = sum(row.dense for row in rows), sum(row.sparse for row in rows)
    return Training(name, pruner.training_flops(dense, sparse, run))


def _missing(unit: str, epochs: int | None, steps: int | None) -> list[str]:
    """Return the arguments without which a schedule in `unit` cannot be averaged."""
    needed = {"fraction": (), "epochs": ("epochs",)}
    given = {"epochs": epochs, "steps_per_epoch": steps}
    return [
        f"{argument}="
        for argument in needed.get(unit, ("epochs", "steps_per_epoch"))
        if given[argument] is None
    ]


def _final(ticket: Ticket, kept: Mapping[int, int]) -> dict[int, int] | None:
    """Return what each kernel keeps at the pruner's sparsity, by `id` of variable.

    That is `kept` if the masks are as sparse already. If not it is what the pruner
    would leave of it, or `None` if that depends on scores.
    """
    pruner, masks = pruner_of(ticket), ticket.mask_set
    if pruner is None or masks.count().kept <= pruner.target(masks).kept:
        return dict(kept)
    alive = [kept[id(kernel.variable)] for kernel in masks.kernels]
    final = dict(kept)
    for group in pruner.groups(masks.kernels, pruner.sparsity):
        budgets = _budgets(group, [alive[i] for i in group.members])
        if budgets is None:
            return None
        for i, budget in zip(group.members, budgets, strict=True):
            final[id(masks.kernels[i].variable)] = budget
    return final


def _budgets(group: Group, alive: Sequence[int]) -> list[int] | None:
    """Return how many of its living weights each member of a group will keep."""
    keep = min(group.keep, sum(alive))
    if group.shares is not None:
        return round_shares(group.shares, keep, alive)
    if keep == sum(alive):
        return list(alive)
    return [keep] if len(alive) == 1 else None


def _table(cost: Cost) -> str:
    size = f"{cost.biases:,}"
    biases = ("biases", size, size, "", "", f"{4 * cost.biases:,}")
    whole = "all kernels" + " and biases" * bool(cost.biases)
    return table(
        f"{cost.name}: operations for one sample",
        ("kernel", ">weights", ">kept", ">dense", ">sparse", ">bytes"),
        [(kernel.path, *_cells(kernel)) for kernel in cost.kernels],
        [[*[biases] * bool(cost.biases), (whole, *_cells(cost))]],
        _sentences(cost),
    )


def _cells(cost: KernelCost | Cost) -> tuple[str, ...]:
    return (
        f"{cost.weights:,}",
        f"{cost.kept:,}",
        f"{cost.dense:,}",
        f"{cost.sparse:,}",
        f"{math.ceil(cost.bytes):,}",
    )


def _sentences(cost: Cost) -> list[str]:
    """Return what the table says in all."""
    sentences = [
        f"Parameters: {cost.parameters:,}. Multiply-accumulates: {cost.macs:,} dense, "
        f"{cost.sparse_macs:,} with the kept weights.",
        f"Inference: {_share(cost.sparse, cost.dense)} of dense where zeros are "
        "skipped; Keras executes it dense.",
    ]
    if cost.training is None:
        return sentences
    trained = cost.training.operations
    if trained is None:
        said = cost.training.unknown
    else:
        said = (
            f"{_share(trained, 3 * cost.dense)} of dense by the paper's formula. "
            "Executed is 1: masked training multiplies dense kernels and is not faster."
        )
    return [*sentences, f"Training with {cost.training.pruner}: {said}"]


def _share(part: float, whole: float) -> str:
    return f"{part / whole if whole else 1.0:.4f}"
