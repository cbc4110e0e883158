"""A report as one HTML file that needs nothing else: no network, no other file, no script to be read.

Pictures are inside as data URIs, the results as JSON. A content security policy forbids every request, so
that the file shows the same wherever it is opened. A small script sorts tables by a click on a heading.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import clue_mobile
from clue_mobile.errors import ClueError
from clue_mobile.models.weights import write_atomic
from clue_mobile.report.grid import Table
from clue_mobile.report.page import PAGE, SCRIPT, STYLE

__all__ = ["Picture", "Report", "Table", "render", "write_report"]

LONG = 30
"""Letters of a cell from which on it is words, which wrap, and no number."""

KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file, what stands below it, and what it shows for those who cannot see it."""

    path: Path
    caption: str
    alt: str = ""


@dataclass(frozen=True)
class Report:
    """`introduction`: paragraphs of plain text. `data`: JSON-able, what the tables were made of; a number
    that is not finite becomes null."""

    title: str
    introduction: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    data: Any = None


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Write the report, whole or not at all, making missing folders; return its path.

    Raises ClueError for a picture that cannot be read or is neither PNG nor JPEG, data that JSON has no form
    for, and a file that cannot be written.
    """
    page = render(report)
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClueError(f"cannot make the folder {target.parent}: {error.strerror}") from None
    write_atomic(target, page.encode("utf-8"))
    return target


def render(report: Report) -> str:
    """The report as HTML text. Raises ClueError as `write_report` does."""
    sections = []
    if report.tables:
        tables = "\n".join(_table(table) for table in report.tables)
        sections.append(f'<section aria-labelledby="tables"><h2 id="tables">Tables</h2>\n{tables}</section>')
    if report.pictures:
        pictures = "\n".join(_picture(picture) for picture in report.pictures)
        sections.append(
            f'<section aria-labelledby="pictures"><h2 id="pictures">Pictures</h2>\n{pictures}</section>'
        )
    if report.data is not None:
        sections.append(
            '<section aria-labelledby="raw"><h2 id="raw">Results</h2>\n<details><summary>As JSON</summary>'
            f'<pre id="results" tabindex="0">{escape(_json(report.data))}</pre></details></section>'
        )
    return PAGE.substitute(
        title=escape(report.title),
        style=STYLE,
        script=SCRIPT,
        introduction="\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in report.introduction),
        sections="\n".join(sections),
        made=f"clue-mobile {clue_mobile.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _json(data: Any) -> str:
    try:
        return json.dumps(_finite(data), indent=1)
    except (TypeError, ValueError) as error:
        raise ClueError(f"the report's data cannot be JSON: {error}") from None


def _finite(data: Any) -> Any:
    """The data with null for what JSON has no number for, such as the loss of a run that diverged."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    # a body for each section, so that sorting keeps a row under its title
    starts = sorted({0, *table.sections})
    bodies = "\n".join(
        _body(table, start, end)
        for start, end in zip(starts, [*starts[1:], len(table.rows)], strict=True)
        if start < end
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n{bodies}</table></div>{note}"
    )


def _body(table: Table, start: int, end: int) -> str:
    title = table.sections.get(start)
    rows = [] if title is None else [
        f'<tr class="section"><th scope="rowgroup" colspan="{len(table.headings)}">{escape(title)}</th></tr>'
    ]  # fmt: skip
    for at in range(start, end):
        first, *others = table.rows[at]
        cells = "".join(_cell(table, at, column, text) for column, text in enumerate(others, 1))
        kind = ' class="stressed"' if at in table.stressed else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(first)}</th>{cells}</tr>')
    lines = "\n".join(rows)
    return f"<tbody>\n{lines}\n</tbody>"


def _cell(table: Table, row: int, column: int, text: str) -> str:
    best = (row, column) in table.best
    kind = ' class="best"' if best else ' class="words"' if len(text) > LONG else ""
    shade = f' style="--shade:{table.shades[row][column]:.3f}"' if table.shades is not None else ""
    said = '<span class="hidden"> (best)</span>' if best else ""
    return f"<td{kind}{shade}>{escape(text)}{said}</td>"


def _picture(picture: Picture) -> str:
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise ClueError(f"cannot read the picture {picture.path}: {error.strerror}") from None
    kinds = [kind for magic, kind in KINDS.items() if content.startswith(magic)]
    if not kinds:
        raise ClueError(f"the picture {picture.path} is neither a PNG nor a JPEG file")
    source = f"data:{kinds[0]};base64,{base64.b64encode(content).decode('ascii')}"
    return (
        f'<figure><img src="{source}" alt="{escape(picture.alt or picture.caption)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
