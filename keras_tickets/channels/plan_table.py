"""A plan as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_tickets._util.tables import render

if TYPE_CHECKING:
    from keras_tickets.channels.removal_plan import ShrinkPlan


def table(plan: ShrinkPlan) -> str:
    """Return a plan as text of at most 100 columns."""
    import rich.box
    import rich.table

    before, after = plan.parameters
    share = f"{after / before:.3f} of " if before else ""
    title = f"{plan.name}: {after:,} parameters, {share}{before:,}"
    rows = rich.table.Table(
        title=title, box=rich.box.SIMPLE_HEAD, title_justify="left", width=100
    )
    rows.add_column("layer", overflow="fold", ratio=2)
    rows.add_column("channels", justify="right")
    rows.add_column("kept", justify="right")
    rows.add_column("left alone because", overflow="fold", ratio=3)
    for name, count in plan.channels.items():
        kept = count - len(plan.removed.get(name, ()))
        rows.add_row(name, f"{count:,}", f"{kept:,}", _reasons(plan, name))
    rows.add_section()
    for left in plan.left:
        if not left.channels:
            rows.add_row(left.layer, "", "all", f"it {left.reason}")
    return render(rows, width=100)


def _reasons(plan: ShrinkPlan, name: str) -> str:
    rows = (left for left in plan.left if left.layer == name and left.channels)
    return "; ".join(f"{row.channels:,} dead: {row.reason}" for row in rows)
