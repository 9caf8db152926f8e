"""`summary`: what is masked, what is kept, and what was left alone."""

from __future__ import annotations

from collections.abc import Callable

import rich.box
import rich.table

from keras_tickets._util.tables import render
from keras_tickets.masks.masked_call import (
    Count,
    count,
)
from keras_tickets.pruners.base import pruner_of
from keras_tickets.recipe.structures import Unstructured
from keras_tickets.ticket.ticket import Ticket


def summary(
    ticket: Ticket,
    *,
    skipped: bool = True,
    mobile: bool = False,
    print_fn: Callable[[str], object] | None = print,
) -> str:
    """Print a table of the kernels of a ticket and return it as a string.

    Args:
        ticket: The ticket, drawn or not.
        skipped: Whether to list what is not pruned, with the reason.
        mobile: Whether to say of each kernel if it runs sparse on a phone, as
            `keras_tickets.diagnose` does; it takes a conversion to `.tflite`.
        print_fn: Where the text goes; `None` prints nothing.

    Returns:
        The table: layer, shape, weights, kept and sparsity for each kernel, totals
        over the prunable weights and over all parameters of the model. If the pruner
        keeps weights together, the title says how.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> "75.00 %" in kt.summary(ticket, print_fn=None)
    True
    """
    if not isinstance(ticket, Ticket):
        raise TypeError(
            "kt.summary expects a Ticket, which kt.wrap(model, pruner) makes. "
            f"Received: {type(ticket).__name__}."
        )
    masks = ticket.mask_set.values()
    rows = [
        (kernel.path, str(kernel.shape), count([mask]))
        for kernel, mask in zip(ticket.kernels, masks, strict=True)
    ]
    kernels = _sparse_kernels(ticket) if mobile else None
    table = _table(f"{ticket.name}: {_state(ticket)}", mobile)
    for path, shape, kept in rows:
        runs = [] if kernels is None else ["", kernels.get(path, "no")]
        table.add_row(path, shape, *_numbers(kept), *runs)
    table.add_section()
    prunable = count(masks)
    table.add_row("prunable weights", "", *_numbers(prunable))
    whole = ticket.model.count_params()
    table.add_row("all parameters", "", *_numbers(Count(whole, whole - prunable.zeros)))
    if skipped and ticket.skipped:
        table.add_section()
        for kernel, reason in ticket.skipped:
            table.add_row(
                kernel.path, str(kernel.shape), f"{kernel.size:,}", "", "", reason
            )
    text = render(table, width=110)
    if print_fn is not None:
        print_fn(text)
    return text


def _state(ticket: Ticket) -> str:
    how = "no pruner"
    if pruner := pruner_of(ticket):
        how = type(pruner).__name__
        if not isinstance(pruner.structure, Unstructured):
            how += f" ({pruner.structure.label})"
    if ticket.unfinished:
        return f"{how}, being mined"
    return f"{how}, {'drawn' if ticket.drawn else 'not drawn yet'}"


def _sparse_kernels(ticket: Ticket) -> dict[str, str]:
    """Return path -> yes and the sparse kernel, of what runs in one on a phone."""
    # Imported here: it converts, and most tables are of training.
    from keras_tickets.mobile.probe_model import (
        diagnose_drawn,
        drawn,
    )

    found = diagnose_drawn(drawn(ticket), ticket.name, "float32", named=str)
    sparse = [layer for layer in found.layers if layer.runs == "sparse"]
    return {layer.name: f"yes, {layer.kernel}" for layer in sparse}


def _numbers(counted: Count) -> tuple[str, str, str]:
    percent = f"{100 * counted.sparsity:.2f} %"
    return f"{counted.total:,}", f"{counted.kept:,}", percent


def _table(title: str, mobile: bool) -> rich.table.Table:
    table = rich.table.Table(
        title=title, box=rich.box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("layer", overflow="fold")
    table.add_column("shape")
    table.add_column("weights", justify="right")
    table.add_column("kept", justify="right")
    table.add_column("sparsity", justify="right")
    table.add_column("left alone because", overflow="fold")
    if mobile:
        table.add_column("runs sparse on mobile?")
    return table
