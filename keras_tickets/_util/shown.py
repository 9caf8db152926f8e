"""How reports show themselves where nobody prints them."""

from __future__ import annotations

import html


class Shown:
    """A report that shows its text at a prompt and in a notebook.

    A dataclass that is one says `repr=False`, or its fields would be shown.

    Example:
    >>> class Report(Shown):
    ...     def __str__(self):
    ...         return "loss < 1"
    >>> Report()
    loss < 1
    >>> Report()._repr_html_()
    '<pre>loss &lt; 1</pre>'
    """

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _repr_markdown_(self) -> str:
        return f"```text\n{self}\n```"
