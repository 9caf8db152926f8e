"""`summary`: what is masked, what is kept, and what is not pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from keras_tickets._util.tables import table
from keras_tickets.masks.masked_call import Count, count
from keras_tickets.pruners.base import pruner_of
from keras_tickets.recipe.structures import Unstructured
from keras_tickets.ticket.ticket import Ticket

COLUMNS: dict[str, Callable[[Ticket], Mapping[str, str]]] = {}
"""Further columns: what to write for each kernel, by its path.

`"mobile"` is registered by `keras_tickets.public`: this package does not know `mobile`.
"""


def summary(
    ticket: Ticket,
    *,
    skipped: bool = True,
    mobile: bool = False,
    verbose: bool = True,
    print_fn: Callable[[str], object] | None = print,
) -> str:
    """Print a table of the kernels of a ticket and return it as a string.

    Args:
        ticket: The ticket, drawn or not.
        skipped: Whether to list what is not pruned, with the reason.
        mobile: Whether to say of each kernel if it runs sparse on a phone, as
            `keras_tickets.diagnose` does; it takes a conversion to `.tflite`.
        verbose: Whether to print the table.
        print_fn: What prints it; `None` is the same as `verbose=False`.

    Returns:
        The table: layer, shape, weights, kept and sparsity for each kernel, totals
        over the prunable weights and over all parameters of the model. If the pruner
        keeps weights together, the title says how.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> "75.00 %" in kt.summary(ticket, verbose=False)
    True
    """
    if not isinstance(ticket, Ticket):
        raise TypeError(
            "kt.summary expects a Ticket, which kt.wrap(model, pruner) makes. "
            f"Received: {type(ticket).__name__}."
        )
    text = _table(ticket, skipped, COLUMNS["mobile"](ticket) if mobile else None)
    if verbose and print_fn is not None:
        print_fn(text)
    return text


def _table(ticket: Ticket, skipped: bool, sparse: Mapping[str, str] | None) -> str:
    """Return the table; with what runs sparse, if that is given."""
    masks = ticket.mask_set.values()
    columns = ["layer", "shape", ">weights", ">kept", ">sparsity", "not pruned because"]
    rows = [
        [kernel.path, str(kernel.shape), *_numbers(count([mask])), ""]
        for kernel, mask in zip(ticket.kernels, masks, strict=True)
    ]
    prunable, whole = count(masks), ticket.model.count_params()
    every = Count(whole, whole - prunable.zeros)
    sums = [
        ["prunable weights", "", *_numbers(prunable), ""],
        ["all parameters", "", *_numbers(every), ""],
    ]
    others = [
        [kernel.path, str(kernel.shape), f"{kernel.size:,}", "", "", reason]
        for kernel, reason in ticket.skipped
        if skipped
    ]
    if sparse is not None:
        columns.append("runs sparse on mobile?")
        rows = [[*row, sparse.get(row[0], "no")] for row in rows]
    title = f"{ticket.name}: {_state(ticket)}"
    return table(title, columns, rows, [sums, others])


def _state(ticket: Ticket) -> str:
    how = "no pruner"
    if pruner := pruner_of(ticket):
        how = type(pruner).__name__
        if not isinstance(pruner.structure, Unstructured):
            how += f" ({pruner.structure.label})"
    if ticket.unfinished:
        return f"{how}, being mined"
    return f"{how}, {'drawn' if ticket.drawn else 'not drawn yet'}"


def _numbers(counted: Count) -> tuple[str, str, str]:
    percent = f"{100 * counted.sparsity:.2f} %"
    return f"{counted.total:,}", f"{counted.kept:,}", percent
