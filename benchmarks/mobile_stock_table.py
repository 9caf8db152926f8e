"""The tables of docs/phone.md and README.md from what `mobile_stock` measured.

    python -m benchmarks.mobile_stock_table [--front]

All rows with their spreads, or what comes of one network, for the front of the README.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.mobile_stock import KINDS, NETWORKS
from benchmarks.record import RESULTS
from keras_tickets.mobile.preparing.rewrites import INEXACT

# All its rows were measured, and are exact.
FRONT = ("MobileNet", 95)


def whole(rows: list[dict[str, Any]], counts: dict[Any, int]) -> str:
    """Everything, with the spreads of the turns."""
    lines = [
        "| network | file | size | gzip | sparse / 1x1 | faster in wasm | on x86 |"
        " ARM64 instructions |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        at, found = row["parameters"], row["results"]
        if at["kind"] == "stock":  # The stock file over itself.
            continue
        what = _what(at) + (": refused" if "failed" in found else "")
        cells = [f"{at['network']} {at['size']}", what, *[""] * 6]
        if "failed" not in found:
            cells[2:] = [
                *_sizes(found),
                f"{found['sparse_nodes']} / {found['pointwise']}",
                *(_speed(found[place]) for place in ("wasm", "host")),
                f"{counts[_key(row)]:,}" if _key(row) in counts else "",
            ]
        lines.append(_line(cells))
    return "\n".join(lines)


def front(rows: list[dict[str, Any]], counts: dict[Any, int]) -> str:
    """One network: every file over the dense stock file."""
    lines = [
        "| file | size | gzip | sparse 1x1 convolutions | faster in wasm | on x86 |"
        " fewer ARM64 instructions |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    rows = [row for row in rows if _key(row)[:2] == FRONT]
    (stock,) = (counts[_key(row)] for row in rows if _key(row)[3] == "stock")
    for row in rows:
        at, found = row["parameters"], row["results"]
        ratios = [
            *(found[place]["speed_up"] for place in ("wasm", "host")),
            stock / counts[_key(row)],
        ]
        lines.append(
            _line(
                [
                    _plainly(at["kind"]),
                    *_sizes(found),
                    f"{found['sparse_nodes']} of {found['pointwise']}",
                    *(
                        "1" if at["kind"] == "stock" else f"{ratio:.2f} x"
                        for ratio in ratios
                    ),
                ]
            )
        )
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _sizes(found: dict[str, Any]) -> list[str]:
    return [f"{found[key] / 1000:,.0f} kB" for key in ("bytes", "gzip_bytes")]


def _plainly(kind: str) -> str:
    if kind == "stock":
        return "stock, dense float32"
    if kind == "stock int8":
        return "stock, dense int8"
    zeros = "dense" if kind == "prepared" else f"{100 * float(kind):g} % zeros"
    return f"prepared, {zeros}"


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    at = row["parameters"]
    return at["network"], at["size"], at["inexact"], at["kind"]


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """Where a row stands: by network, size, how it was prepared, and what it is."""
    name, size, inexact, kind = _key(row)
    return ([*NETWORKS].index(name), size, INEXACT.index(inexact), KINDS.index(kind))


def _what(at: dict[str, Any]) -> str:
    kind = at["kind"]
    if kind.startswith("stock"):
        return kind
    form = {False: "exact", True: "inexact stem", "faster": "inexact"}[at["inexact"]]
    zeros = "" if kind == "prepared" else f", {100 * float(kind):g} % zeros"
    return f"prepared ({form}){zeros}"


def _speed(found: dict[str, float]) -> str:
    low, high = found["speed_up_p10"], found["speed_up_p90"]
    return f"{found['speed_up']:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Prints one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--front", action="store_true")
    table = front if parser.parse_args().front else whole
    rows = json.loads((RESULTS / "mobile_stock.json").read_text())["rows"]
    counts = {
        _key(row): row["results"]["instructions"]
        for row in rows
        if "counted" in row["parameters"]
    }
    timed = [row for row in rows if "counted" not in row["parameters"]]
    print(table(sorted(timed, key=_place), counts))


if __name__ == "__main__":
    main()
