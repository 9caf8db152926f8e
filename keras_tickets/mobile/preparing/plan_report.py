"""A plan as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_tickets._util.tables import table as text_table

if TYPE_CHECKING:
    from keras_tickets.mobile.preparing.preparation_plan import (
        PreparePlan,
        Rewritten,
    )


def table(plan: PreparePlan) -> str:
    """Return a plan as text."""
    reasons: dict[str, list[str]] = {}
    for left in plan.left:
        reasons.setdefault(left.reason, []).append(left.layer)
    return text_table(
        f"{plan.name}: {_verdict(plan)}",
        ("layer", "rewrite", "exact", ">difference", "not rewritten because"),
        [
            (step.layer, step.rewrite, _yes(step.exact), _difference(step), "")
            for step in plan.done
        ],
        [[(", ".join(same), "", "", "", why) for why, same in reasons.items()]],
    )


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
