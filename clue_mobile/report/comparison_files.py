"""Everything that a comparison shows, as files in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from clue_mobile.report import amounts
from clue_mobile.report import comparison_text as text
from clue_mobile.report import plots_comparison as plots
from clue_mobile.report.comparison import Comparison
from clue_mobile.report.comparison_html import to_report
from clue_mobile.report.html import write_report


def write(folder: Path, found: Sequence[Comparison], classes: Sequence[str]) -> list[Path]:
    """Write table.md, table.csv, table.tex, table.json and, for the last and most general table, the pictures
    whose numbers are known: gaps.png, scatter.png, classes.png, and, of several numbers of forget images,
    amounts.png; and report.html, all of it in one file. Returns the paths."""
    documents = {
        "table.md": text.to_markdown(found),
        "table.csv": text.to_csv(found),
        "table.tex": text.to_latex(found),
        "table.json": json.dumps(text.to_json(found), indent=1) + "\n",
    }
    written = []
    for name, content in documents.items():
        path = folder / name
        unfinished = folder / f".{name}.{os.getpid()}.tmp"
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(path)
        written.append(path)
    whole, title = found[-1], text.title(found[-1])
    if any(line.stats["gap"] for line in whole.lines):
        written.append(plots.gaps_picture(folder / "gaps.png", whole, title))
    if any(line.runs for line in whole.lines):
        written.append(plots.scatter_picture(folder / "scatter.png", whole, title))
        written.append(
            plots.classes_picture(folder / "classes.png", [c for c in found if c.class_name], classes)
        )
    if any(len(lines) > 1 for lines in amounts.series(whole).values()):
        written.append(amounts.picture(folder / "amounts.png", whole, title))
    drawn = [path for path in written if path.suffix == ".png"]
    written.append(write_report(folder / "report.html", to_report(found, drawn)))
    return written
