"""A table of text, from which every form is made: rich text, HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A table of text: `rows` are as long as `headings`, the first cell of each names the row.

    best: (row, column) of the cells to mark. shades: how dark each cell's ground is, 0 to 1, for a matrix.
    note: a sentence below, such as what the columns mean. Raises ClueError for rows of another length.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    shades: Sequence[Sequence[float]] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ClueError(
                    f"the table {self.caption!r} has {len(self.headings)} headings and a row of {len(row)}"
                )

    def to_rich(self) -> RichTable:
        """The table for a terminal; the cells of `best` are bold."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        # Lean lines, so that no number is cut on a terminal of 80 columns.
        table = RichTable(title=self.caption, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for at, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="right" if at else "left", no_wrap=not at)
        for at, row in enumerate(self.rows):
            # Text, not str: a name in square brackets is no markup.
            cells = (
                Text(text, style="bold" if (at, column) in self.best else "")
                for column, text in enumerate(row)
            )
            table.add_row(*cells)
        return table
