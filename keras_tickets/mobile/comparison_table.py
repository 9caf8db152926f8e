"""What `compare` measured, as a table to print, to publish or to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_tickets._util.tables import table


@dataclasses.dataclass(frozen=True)
class Latency:
    """How fast a file ran in one place.

    Args:
        median_ms: The median over the turns of the median of a turn, in milliseconds;
            the latter of means where the place tells no single runs.
        speed_up: The median over the turns of the first file's time over this one's.
        speed_up_low: The least of these ratios.
        speed_up_high: The largest.
    """

    median_ms: float
    speed_up: float
    speed_up_low: float
    speed_up_high: float


@dataclasses.dataclass(frozen=True)
class Place:
    """What ran the files.

    Args:
        runtime: Which program, with its version; one for each format.
        device: Which machine.
        emulated: Whether it was an emulated one, so that its times say nothing.
        means: Whether its times are means of several runs, and no single ones.
        conditions: What else its times depend on, in words by topic: cores, warmth.
    """

    runtime: str
    device: str
    emulated: bool
    means: bool = False
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """One file.

    Args:
        name: What the caller calls it.
        path: Where it lies.
        bytes: Its size.
        gzip_bytes: Its size compressed, as app stores deliver it.
        accuracy: What the caller says of it.
        latencies: How fast it ran in each place.
    """

    name: str
    path: str
    bytes: int
    gzip_bytes: int
    accuracy: float | None
    latencies: Mapping[str, Latency]


@dataclasses.dataclass(frozen=True)
class ComparisonTable:
    """Files beside each other; the first is what the others are compared with.

    Args:
        rows: The files.
        places: What ran them.
        turns: How often each ran in each place.
        runs: How many runs of a turn were timed.
        threads: Threads that a runtime was allowed.

    Example:
    >>> place = Place("LiteRT.js 2.5", "a desk", emulated=False)
    >>> rows = [
    ...     Row(name, f"{name}.tflite", size, size // 2, None, {"wasm": latency})
    ...     for name, size, latency in [
    ...         ("dense", 4000, Latency(3.0, 1.0, 1.0, 1.0)),
    ...         ("sparse", 1000, Latency(1.5, 2.0, 1.9, 2.2)),
    ...     ]
    ... ]
    >>> print(ComparisonTable(tuple(rows), {"wasm": place}, 5, 20, 1).to_markdown())
    | file | bytes | gzip | wasm, ms | wasm, speed-up |
    | --- | ---: | ---: | ---: | ---: |
    | dense | 4,000 | 2,000 | 3 | 1.00 (1.00 to 1.00) |
    | sparse | 1,000 | 500 | 1.5 | 2.00 (1.90 to 2.20) |
    <BLANKLINE>
    - wasm: LiteRT.js 2.5, a desk
    - batch size 1, threads: 1; 5 turns of 20 runs, medians (least to most of the turns)
    """

    rows: tuple[Row, ...]
    places: Mapping[str, Place]
    turns: int
    runs: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers, ready for `json.dumps`."""
        return dataclasses.asdict(self)

    def to_markdown(self) -> str:
        """Returns the table in Markdown, with what it was measured on below."""
        header, *cells = self._cells()
        rule = ["---", *["---:"] * (len(header) - 1)]
        for row in cells:
            row[0] = " ".join(row[0].split()).replace("|", r"\|")
        lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *cells)]
        return "\n".join([*lines, "", *(f"- {note}" for note in self._notes())])

    def __str__(self) -> str:
        """Return the table."""
        (first, *others), *cells = self._cells()
        columns = (first, *(f">{name}" for name in others))
        return table("", columns, cells, notes=self._notes())

    def _cells(self) -> list[list[str]]:
        rated = any(row.accuracy is not None for row in self.rows)
        header = ["file", "bytes", "gzip", *["accuracy"] * rated]
        for name, place in self.places.items():
            # Emulated milliseconds are nobody's: only their ratio is shown.
            header += [f"{name}, ms"] * (not place.emulated)
            header.append(
                f"{name}, {'emulated ratio' if place.emulated else 'speed-up'}"
            )
        return [header, *(self._row(row, rated) for row in self.rows)]

    def _row(self, row: Row, rated: bool) -> list[str]:
        cells = [row.name, f"{row.bytes:,}", f"{row.gzip_bytes:,}"]
        if rated:
            cells.append("" if row.accuracy is None else f"{row.accuracy:.4g}")
        for name, place in self.places.items():
            found = row.latencies[name]
            cells += [f"{found.median_ms:.3g}"] * (not place.emulated)
            spread = f"{found.speed_up_low:.2f} to {found.speed_up_high:.2f}"
            cells.append(f"{found.speed_up:.2f} ({spread})")
        return cells

    def _notes(self) -> list[str]:
        notes = [
            f"{name}: {place.runtime}, {place.device}"
            + ", emulated" * place.emulated
            + ", means of several runs" * place.means
            + "".join(f"; {topic}: {told}" for topic, told in place.conditions.items())
            for name, place in self.places.items()
        ]
        notes.append(
            f"batch size 1, threads: {self.threads}; {self.turns} turns of {self.runs} "
            "runs, medians (least to most of the turns)"
        )
        return notes
