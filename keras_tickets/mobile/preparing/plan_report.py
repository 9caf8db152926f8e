"""A plan as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_tickets._util.tables import render

if TYPE_CHECKING:
    from keras_tickets.mobile.preparing.preparation_plan import (
        PreparePlan,
        Rewritten,
    )


def table(plan: PreparePlan) -> str:
    """Return a plan as text of at most 100 columns."""
    import rich.box
    import rich.table

    rows = rich.table.Table(
        title=f"{plan.name}: {_verdict(plan)}",
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        width=100,
    )
    rows.add_column("layer", overflow="fold", ratio=2)
    rows.add_column("rewrite", overflow="fold")
    rows.add_column("exact")
    rows.add_column("difference", justify="right")
    rows.add_column("left alone: this", overflow="fold", ratio=3)
    for step in plan.done:
        rows.add_row(step.layer, step.rewrite, _yes(step.exact), _difference(step), "")
    rows.add_section()
    for reason in dict.fromkeys(left.reason for left in plan.left):
        same = [left.layer for left in plan.left if left.reason == reason]
        rows.add_row(", ".join(same), "", "", "", reason)
    return render(rows, width=100)


def _verdict(plan: PreparePlan) -> str:
    changed = (
        f"{len(plan.done)} rewritten, outputs differ by {plan.relative:.1g} of them"
        if plan.done
        else "nothing to rewrite"
    )
    if plan.ready:
        return f"{changed}; nothing keeps it from sparse kernels"
    return f"{changed}; what is left keeps its convolutions dense"


def _yes(exact: bool) -> str:
    return "yes" if exact else "no"


def _difference(step: Rewritten) -> str:
    return f"{step.relative:.1g}" if step.relative == step.relative else "other size"
