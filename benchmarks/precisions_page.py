"""`docs/precisions.md`: what to choose, and the measurements behind it."""

from __future__ import annotations

import pathlib
from typing import Any

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "precisions.md"

# The part that is not measured: what to choose.
_CHOICE = pathlib.Path(__file__).with_name("precisions.md")


def write(content: dict[str, Any], page: pathlib.Path = PAGE) -> None:
    """Writes the page of a record."""
    page.parent.mkdir(exist_ok=True)
    page.write_text(render(content))


def render(content: dict[str, Any]) -> str:
    """Returns the page of a record."""
    versions = ", ".join(f"{k} {v}" for k, v in content["versions"].items())
    machine = content["machine"]
    parts = [
        _CHOICE.read_text().format(
            command=content["command"],
            versions=f"Versions: {versions}. {machine['cpu']}, {machine['cores']} "
            f"cores. Date: {content['date'][:10]}.",
        )
    ]
    for row in content["rows"]:
        title = "{network}, {structure}".format(**row["parameters"])
        lines = [
            f"### {title.capitalize()}\n",
            "| precision | zeros | bytes | gzip | over reference | time | tensors |",
            "|---|---|--:|--:|--:|---|---|",
            *(_line(key, cell) for key, cell in row["results"].items()),
        ]
        parts.append("\n".join([*lines, "", ""]))
    return "".join(parts)


def _line(key: str, cell: dict[str, Any]) -> str:
    precision, way = key.split()
    if "breaks" in cell:
        return f"| {precision} | {way} | | | | | breaks: {cell['breaks']} |"
    ratio, least, most = cell["time_ratio"]
    encodings = ", ".join(f"{n} {name}" for name, n in cell["encodings"].items())
    return (
        f"| {precision} | {way} | {cell['bytes']:,} | {cell['gzip_bytes']:,} "
        f"| {cell['reference_ratio']:.2f} | {ratio:.2f} ({least:.2f} to {most:.2f}) "
        f"| {encodings} |"
    )
