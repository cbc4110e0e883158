"""A table of text, from which every form is made: rich text, Markdown, LaTeX, HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", ">": "$>$", "<": "$<$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of text: `rows` are as long as `headings`, the first cell of each names the row.

    best: (row, column) of the cells to mark. stressed: rows in bold, such as a reference. sections: titles,
    by the row before which they stand. shades: how dark each cell's ground is, 0 to 1, for a matrix. note: a
    sentence below, such as what the columns mean. Raises ClueError for rows of another length.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    shades: Sequence[Sequence[float]] | None = None
    note: str = ""
    stressed: frozenset[int] = frozenset()
    sections: Mapping[int, str] = field(default_factory=dict)

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
        table = RichTable(title=self.caption or None, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for at, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="right" if at else "left", no_wrap=not at)
        for at, row in enumerate(self.rows):
            if at in self.sections:
                table.add_section()
                table.add_row(Text(self.sections[at], style="italic"))
            # Text, not str: a name in square brackets is no markup.
            cells = (
                Text(text, style="bold" if (at, column) in self.best else "")
                for column, text in enumerate(row)
            )
            table.add_row(*cells, style="bold" if at in self.stressed else None)
        return table

    def to_markdown(self) -> str:
        """The table in Markdown, ending with a newline; a section's title is a row of its own."""
        rest = len(self.headings) - 1
        lines = ["| " + " | ".join(self.headings) + " |", "|---" + "|---:" * rest + "|"]
        for at, row in enumerate(self.rows):
            if at in self.sections:
                lines.append(f"| *{_piped(self.sections[at])}* |" + " |" * rest)
            lines.append("| " + " | ".join(map(_piped, row)) + " |")
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """The table as a LaTeX tabular for the package booktabs, ending with a newline."""
        width = len(self.headings)
        lines = [
            r"\begin{tabular}{l" + "r" * (width - 1) + "}",
            r"\toprule",
            _joined(self.headings),
            r"\midrule",
        ]
        for at, row in enumerate(self.rows):
            if at in self.sections:
                lines += [r"\midrule"] * bool(at)
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_escaped(self.sections[at])}}}}} \\")
            lines.append(_joined(row, r"\textbf{%s}" if at in self.stressed else "%s"))
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _piped(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _joined(cells: Sequence[str], form: str = "%s") -> str:
    return " & ".join(form % _escaped(cell) if cell else "" for cell in cells) + r" \\"
