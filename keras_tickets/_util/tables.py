"""Tables as plain text, for reports that print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table


def facts(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return rows of (what, value) as text of at most 88 columns."""
    # rich is imported late: `import keras_tickets` should cost next to nothing.
    import rich.box
    import rich.table

    table = rich.table.Table(title=title, box=rich.box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return render(table, width=88)


def render(table: rich.table.Table, width: int) -> str:
    """Return a table as text, without colours and trailing blanks."""
    import io

    import rich.console

    console = rich.console.Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(table, markup=False, highlight=False)
    lines = (line.rstrip() for line in capture.get().splitlines())
    return "\n".join(lines).strip("\n")
