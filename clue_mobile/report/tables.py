"""A table of methods and their scores, as a rich table, as Markdown, and as JSON-able values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clue_mobile.errors import ClueError
from clue_mobile.evaluate import Scores
from clue_mobile.report import grid

if TYPE_CHECKING:
    from rich.table import Table

REFERENCE = "Retrain"
"""The row from which the gaps of the others are measured."""

HEADINGS = ("Method", "UA", "RA", "TA", "MIA", "Avg. gap", "Forget test", "Time (s)", "Peak (MiB)")
NOT_KNOWN = "-"


@dataclass(frozen=True)
class Row:
    """A method's result; `wall_s` in seconds and `peak_mib` in MiB are None where they were not measured."""

    name: str
    scores: Scores
    wall_s: float | None = None
    peak_mib: float | None = None


def to_rich(rows: Sequence[Row], *, title: str | None = None, reference: str = REFERENCE) -> Table:
    """Return the table for a terminal; the reference row is bold. Scores are in percent, gaps in points."""
    return grid.to_rich(HEADINGS, [_block(rows, reference)], title)


def to_markdown(rows: Sequence[Row], *, reference: str = REFERENCE) -> str:
    """Return the table in Markdown, ending with a newline. Scores are in percent, gaps in points."""
    return grid.to_markdown(HEADINGS, [_block(rows, reference)])


def to_json(rows: Sequence[Row], *, reference: str = REFERENCE) -> dict[str, Any]:
    """Return the table as JSON-able values, not rounded; what is not known is None."""
    return {
        "reference": reference,
        "rows": [
            {
                "name": row.name,
                "scores": row.scores.to_json(),
                "gap": gap,
                "wall_s": row.wall_s,
                "peak_mib": row.peak_mib,
            }
            for row, gap in zip(rows, _gaps(rows, reference), strict=True)
        ],
    }


def _gaps(rows: Sequence[Row], reference: str) -> list[float | None]:
    """Return each row's gap to the reference row; None for that row itself, and for all where it is absent.

    Raises ClueError where two rows have the reference's name.
    """
    found = [row.scores for row in rows if row.name == reference]
    if len(found) > 1:
        raise ClueError(f"{len(found)} rows are called {reference}: gaps need a single reference")
    if not found:
        return [None] * len(rows)
    return [None if row.name == reference else row.scores.gap(found[0]) for row in rows]


def _block(rows: Sequence[Row], reference: str) -> grid.Block:
    """Return the text of each row's cells."""
    cells = [
        [
            row.name,
            *(f"{value:.2f}" for value in (row.scores.ua, row.scores.ra, row.scores.ta, row.scores.mia)),
            number(gap, 2),
            f"{row.scores.forget_test:.2f}",
            number(row.wall_s, 1),
            number(row.peak_mib, 0),
        ]
        for row, gap in zip(rows, _gaps(rows, reference), strict=True)
    ]
    return grid.Block(cells, bold=frozenset(n for n, row in enumerate(rows) if row.name == reference))


def number(value: float | None, digits: int) -> str:
    """Return a number with thousands separated, NOT_KNOWN for None."""
    return NOT_KNOWN if value is None else f"{value:,.{digits}f}"
