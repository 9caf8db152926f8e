"""The probe model: a pruned, converted copy of a model, to see what will run sparse.

A copy of the model is pruned at random and converted; the model itself is not touched.
Where the zeros are shows which weights of the file are which of the model, also where
the converter renamed layers or folded others in: random masks do not repeat.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_tickets import pruners
from keras_tickets._util.file_tensor import Array, FileTensor
from keras_tickets.backend import array_of
from keras_tickets.convert import names
from keras_tickets.convert.exporting import draft
from keras_tickets.kernels import Kernel, choose_kernels, find_kernels, positions
from keras_tickets.masks.masked_call import count
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.masks.stripping import rebuild, unmasked
from keras_tickets.pruners.base import pruner_of
from keras_tickets.pruners.wrapping import wrap
from keras_tickets.ticket.ticket import Ticket
from keras_tickets.xnnpack.analysis import analyze
from keras_tickets.xnnpack.diagnosis import Diagnosis

# Of a model that says nothing of its own.
SPARSITY = 0.9

# A model with fewer zeros among its weights is not pruned.
_PRUNED = 0.01

# int8 has 127 steps from zero to the largest weight.
_LARGEST_OVER_LEAST = 32


@dataclasses.dataclass(frozen=True)
class ProbeModel:
    """A plain model with zeros.

    Args:
        model: The model.
        paths: What its kernels are called in the model that it stands for, by `id` of
            the variable.
        assumed: What was assumed of it.
    """

    model: keras.Model
    paths: Mapping[int, str]
    assumed: str


def probe(model: keras.Model, sparsity: float | None = None) -> ProbeModel:
    """Return a model as it will be once it is pruned; it is not changed.

    Args:
        model: A ticket or a model.
        sparsity: The fraction of zeros to assume. By default a model that has zeros
            stays as it is, and others get what the ticket's pruner is for, or 0.9.

    Raises:
        ValueError: If a sparsity is given for a ticket that is drawn.
    """
    if isinstance(model, Ticket) and model.drawn:
        if sparsity is not None:
            raise ValueError(
                f"The masks of '{model.name}' are drawn, and are what is judged; "
                "sparsity= is what to assume of zeros that are not drawn yet. "
                f"Received: sparsity={sparsity!r}. Leave it out, or pass the model "
                "without masks."
            )
        return _as_it_is(model, model.model)
    if isinstance(model, Ticket) or sparsity is not None or not _is_sparse(model):
        return pruned(model, sparsity)
    return _as_it_is(model, model)


def _as_it_is(model: keras.Model, inner: keras.Model) -> ProbeModel:
    plain = unmasked(model)
    return ProbeModel(plain, _paths(inner, plain), "")


def pruned(
    model: keras.Model,
    sparsity: float | None = None,
    structure: Any = None,
    kernels: list[Kernel] | None = None,
) -> ProbeModel:
    """Return a copy of a model with zeros at random.

    Args:
        model: A ticket that was not drawn, or a model.
        sparsity: The fraction of zeros.
        structure: What is kept together; by default as the ticket's pruner has it.
        kernels: What gets zeros; by default what the ticket masks, or all that can.

    The allocation is that of the ticket's pruner; of a model all kernels get the same.
    """
    ticket = model if isinstance(model, Ticket) else None
    inner = model if ticket is None else ticket.model
    pruner = None if ticket is None else pruner_of(ticket)
    if sparsity is None:
        sparsity = SPARSITY if pruner is None else pruner.sparsity
    if structure is None:
        structure = "unstructured" if pruner is None else pruner.structure
    if kernels is None:
        chosen = choose_kernels(inner, held=_held(inner)).kernels
        kernels = [*chosen, *_held(inner)] if ticket is None else list(ticket.kernels)
    copy = unmasked(rebuild(inner))
    at = positions(inner)
    mine = find_kernels(copy)
    own = [mine[at[id(kernel.variable)]].variable for kernel in kernels]
    allocation = getattr(pruner, "allocation", "uniform")
    draw = pruners.Random(sparsity, allocation, structure, seed=0, on_collapse="warn")
    masked = wrap(copy, draw, only=own)
    with warnings.catch_warnings():
        # Whether random zeros cut a signal is nothing that the user drew.
        warnings.simplefilter("ignore", UserWarning)
        masked.draw(verbose=0)
    plain = unmasked(masked)
    _raise_small(plain)
    assumed = f"random zeros, {sparsity:.0%} of {len(kernels)} kernels"
    return ProbeModel(plain, _paths(inner, plain), assumed)


def _raise_small(model: keras.Model) -> None:
    """Keep small weights from becoming zeros where integers stand for them.

    The file is never run, and zeros where the masks have none would hide which kernel
    of the model a kernel of the file is.
    """
    for kernel in find_kernels(model):
        values = array_of(kernel.variable)
        size = np.abs(values)
        least = size.max(initial=0) / _LARGEST_OVER_LEAST
        kernel.variable.assign(np.sign(values) * np.maximum(size, least))


def _layer_of(path: str) -> str:
    """Return the layer of a kernel, from its path."""
    return path.rpartition("/")[0] or path


def diagnose_probe(
    found: ProbeModel,
    subject: str,
    precision: str,
    named: Callable[[str], str] = _layer_of,
) -> Diagnosis:
    """Convert a model with zeros and tell what runs sparse.

    Args:
        found: The model.
        subject: What the report calls it.
        precision: Of the file.
        named: Given the path of a kernel, what the report calls it.
    """
    file = draft(found.model, precision)
    fingerprints = _fingerprints(found)

    def naming(scope: str, kernel: FileTensor | None) -> str:
        path = None if kernel is None else fingerprints.get(_fingerprint_of(kernel))
        return named(path) if path else names.layer_of(found.model, scope)

    report = analyze(file, subject, naming)
    return dataclasses.replace(report, assumed=found.assumed)


def sparse_kernels(ticket: Ticket) -> dict[str, str]:
    """Return what `summary` says of the kernels of a ticket that run sparse.

    Args:
        ticket: The ticket, drawn or not.

    Returns:
        The path of each such kernel, with its sparse kernel.
    """
    found = diagnose_probe(probe(ticket), ticket.name, "float32", named=str)
    sparse = [layer for layer in found.layers if layer.runs == "sparse"]
    return {layer.name: f"yes, {layer.kernel}" for layer in sparse}


def _fingerprints(found: ProbeModel) -> dict[bytes, str]:
    """Return the paths of kernels, by where their zeros are; not of those alike."""
    paths: dict[bytes, list[str]] = {}
    for kernel in find_kernels(found.model):
        kept = kernel.view.unfold(array_of(kernel.variable)) != 0
        if not kept.all():
            path = found.paths[id(kernel.variable)]
            paths.setdefault(fingerprint(kept), []).append(path)
    return {mark: found[0] for mark, found in paths.items() if len(found) == 1}


def fingerprint(matrices: Array) -> bytes:
    """Return where the zeros of a kernel are; taps x inputs x outputs."""
    kept = np.asarray(matrices) != 0
    return np.array(kept.shape, np.int64).tobytes() + np.packbits(kept).tobytes()


def _fingerprint_of(kernel: FileTensor) -> bytes:
    """Return the fingerprint of a constant of a file, which has its outputs first."""
    values = kernel.values != kernel.zero
    inputs_last = values.reshape(values.shape[0], -1, values.shape[-1])
    return fingerprint(inputs_last.transpose(1, 2, 0))


def _paths(source: keras.Model, copy: keras.Model) -> dict[int, str]:
    """Return what the kernels of a copy are called in the model that it was made of."""
    theirs = find_kernels(source)
    return {
        id(mine.variable): kernel.path
        for mine, kernel in zip(find_kernels(copy), theirs, strict=True)
    }


def _held(model: keras.Model) -> list[Kernel]:
    return [k for layer in masked_layers(model) for k in layer.mask_set.kernels]


def _is_sparse(model: keras.Model) -> bool:
    kernels = choose_kernels(model, held=_held(model)).kernels
    masks = [array_of(kernel.variable) != 0 for kernel in kernels]
    return bool(_held(model)) or count(masks).sparsity > _PRUNED
