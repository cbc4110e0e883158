"""A table of methods and their scores, as a rich table, as Markdown, and as JSON-able values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clue_mobile.errors import ClueError
from clue_mobile.evaluate import Scores
from clue_mobile.report.grid import Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

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


def to_rich(rows: Sequence[Row], *, title: str | None = None, reference: str = REFERENCE) -> RichTable:
    """Return the table for a terminal; the reference row is bold. Scores are in percent, gaps in points."""
    return _table(rows, title or "", reference).to_rich()


def to_markdown(rows: Sequence[Row], *, reference: str = REFERENCE) -> str:
    """Return the table in Markdown, ending with a newline. Scores are in percent, gaps in points."""
    return _table(rows, "", reference).to_markdown()


def to_table(rows: Sequence[Row], *, caption: str, reference: str = REFERENCE) -> Table:
    """Return the table for a report; the lowest gap is marked."""
    gaps = {at: gap for at, gap in enumerate(_gaps(rows, reference)) if gap is not None}
    lowest = min(gaps.values(), default=None)
    column = HEADINGS.index("Avg. gap")
    return Table(
        caption,
        HEADINGS,
        _cells(rows, reference),
        best=frozenset((at, column) for at, gap in gaps.items() if gap == lowest),
        note="UA: accuracy on the forget set; RA: on the retain set; TA: on the test images of the other "
        "classes; MIA: images of the forget set that a membership attack takes for never trained on; all in "
        f"percent. Avg. gap: mean distance of these four from {reference}, in points.",
    )


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


def _table(rows: Sequence[Row], caption: str, reference: str) -> Table:
    stressed = frozenset(at for at, row in enumerate(rows) if row.name == reference)
    return Table(caption, HEADINGS, _cells(rows, reference), stressed=stressed)


def _cells(rows: Sequence[Row], reference: str) -> list[list[str]]:
    """Return the text of each row's cells."""
    return [
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


def number(value: float | None, digits: int) -> str:
    """Return a number with thousands separated, NOT_KNOWN for None."""
    return NOT_KNOWN if value is None else f"{value:,.{digits}f}"
