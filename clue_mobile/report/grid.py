"""A table of text for a terminal, in Markdown and in LaTeX; numbers are formatted before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", ">": "$>$", "<": "$<$",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Rows of as many cells as there are headings, under a title of their own ("" for none); `bold` are the
    numbers of rows to stress."""

    rows: Sequence[Sequence[str]]
    title: str = ""
    bold: frozenset[int] = frozenset()


def to_rich(headings: Sequence[str], blocks: Sequence[Block], title: str | None = None) -> Table:
    """For a terminal; the first column is on the left, the others on the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Lean lines, so that no number is cut on a terminal of 80 columns.
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=not place)
    for block in blocks:
        if block.title:
            table.add_section()
            table.add_row(Text(block.title, style="italic"))
        for number, cells in enumerate(block.rows):
            # Text, not str: a name in square brackets is no markup.
            table.add_row(*map(Text, cells), style="bold" if number in block.bold else None)
    return table


def to_markdown(headings: Sequence[str], blocks: Sequence[Block]) -> str:
    """Markdown, ending with a newline. A block's title is a row of its own."""
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for block in blocks:
        if block.title:
            lines.append(f"| *{_piped(block.title)}* |" + " |" * (len(headings) - 1))
        lines += ["| " + " | ".join(_piped(cell) for cell in cells) + " |" for cells in block.rows]
    return "\n".join(lines) + "\n"


def to_latex(headings: Sequence[str], blocks: Sequence[Block]) -> str:
    """A LaTeX tabular for the package booktabs, ending with a newline."""
    lines = [r"\begin{tabular}{l" + "r" * (len(headings) - 1) + "}", r"\toprule", _joined(headings)]
    for block in blocks:
        lines.append(r"\midrule")
        if block.title:
            lines.append(rf"\multicolumn{{{len(headings)}}}{{l}}{{\textit{{{_escaped(block.title)}}}}} \\")
        for number, cells in enumerate(block.rows):
            lines.append(_joined(cells, r"\textbf{%s}" if number in block.bold else "%s"))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _piped(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _joined(cells: Sequence[str], form: str = "%s") -> str:
    return " & ".join(form % _escaped(cell) if cell else "" for cell in cells) + r" \\"
