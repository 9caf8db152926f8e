"""Tables as plain text, for reports that print."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

# What tables need at least; a wide terminal gives more.
_WIDTH = 112

Row = Sequence[str]


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Row],
    sections: Iterable[Iterable[Row]] = (),
    notes: Iterable[str] = (),
) -> str:
    """Return a table as text.

    Args:
        title: The line above; none if it is empty.
        columns: Their headers; `">"` in front aligns a column to the right.
        rows: The cells, row by row.
        sections: More rows, each section below a blank line.
        notes: Lines below the table.

    Returns:
        The text, without colors and trailing blanks.

    Example:
    >>> print(table("two kernels", ["layer", ">kept"], [["a", "5"], ["b", "12"]]))
    two kernels
     layer   kept
    ──────────────
     a          5
     b         12
    """
    text = _rendered(columns, [rows, *sections])
    return "\n".join([*[title][: bool(title)], text, *notes])


def facts(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return rows of (what, value) as text, below a title."""
    return f"{title}\n{_rendered(('', ''), [rows], header=False)}"


def _rendered(
    columns: Sequence[str], sections: Iterable[Iterable[Row]], header: bool = True
) -> str:
    import io

    # rich is imported late: `import keras_tickets` should cost next to nothing.
    import rich.box
    import rich.console
    import rich.table

    built = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_header=header)
    for name in columns:
        right = name.startswith(">")
        built.add_column(
            name.removeprefix(">"),
            justify="right" if right else "left",
            overflow="fold",
        )
    for section in sections:
        built.add_section()
        for row in section:
            built.add_row(*row)
    width = max(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    console = rich.console.Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(built, markup=False, highlight=False)
    lines = (line.rstrip() for line in capture.get().splitlines())
    return "\n".join(lines).strip("\n")
