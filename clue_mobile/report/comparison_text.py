"""A comparison as tables: for a terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clue_mobile.report import amounts
from clue_mobile.report.comparison import METRICS, ORIGINAL, RETRAIN, Comparison, Line, Stat
from clue_mobile.report.grid import Table
from clue_mobile.report.tables import NOT_KNOWN, number

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HEADINGS = ("Method", "Retain", *(heading for heading, _ in METRICS.values()))


def to_rich(comparison: Comparison, width: int) -> list[RichTable]:
    """The table for a terminal of `width` columns: in two parts where it would not fit, the deviations below
    the means."""
    whole = to_table(comparison)
    columns = zip(whole.headings, *whole.rows, strict=True)
    if sum(2 + max(map(len, column)) for column in columns) <= width:
        return [whole.to_rich()]
    parts = ((0, 1, 2, 3, 4, 5, 6), (0, 7, 8, 9, 10, 11))
    return [
        replace(
            whole,
            caption=whole.caption if part is parts[0] else "",
            headings=[whole.headings[place] for place in part],
            rows=[[row[place].replace(" ±", "\n±") for place in part] for row in whole.rows],
        ).to_rich()
        for part in parts
    ]


def to_table(comparison: Comparison) -> Table:
    """The table of which the other forms are made; the retrained model is stressed, blocks have titles."""
    blocks = list(dict.fromkeys(line.block for line in comparison.lines))
    lines = sorted(comparison.lines, key=lambda line: blocks.index(line.block))
    return Table(
        title(comparison),
        HEADINGS,
        [_cells(line) for line in lines],
        stressed=frozenset(at for at, line in enumerate(lines) if line.method == RETRAIN),
        sections={
            at: line.block
            for at, line in enumerate(lines)
            if line.block and (not at or lines[at - 1].block != line.block)
        },
    )


def to_markdown(found: Sequence[Comparison]) -> str:
    """All tables, each under its heading with what stands beside it, and the hyperparameters at the end."""
    parts = []
    for each in found:
        parts.append(f"## {title(each)}\n\n{to_table(each).to_markdown()}")
        parts.append("".join(f"- {line}\n" for line in beside(each)))
    settings = "".join(f"- {line}\n" for line in hyperparameters(found))
    return "\n".join([*parts, f"## Hyperparameters\n\n{settings}"])


def to_latex(found: Sequence[Comparison]) -> str:
    """All tables as LaTeX tabulars (booktabs), each under a comment that says what it is."""
    return "\n".join(f"% {title(each)}\n{to_table(each).to_latex()}" for each in found)


def to_csv(found: Sequence[Comparison]) -> str:
    """One line for each table and method, not rounded; what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    pairs = [f"{name}_{kind}" for name in METRICS for kind in ("mean", "std")]
    about = ["forgotten", "method", "variant", "name", "block", "retain", "runs", "failed"]
    writer.writerow([*about, *pairs, "forget_from", "forget_images"])
    for each in found:
        for line in each.lines:
            values = [
                None if stat is None else getattr(stat, kind)
                for stat in (line.stats[name] for name in METRICS)
                for kind in ("mean", "std")
            ]
            about = [each.class_name or "all", line.method, line.variant, line.name, line.block, line.retain]
            forgotten = line.forget_from, line.forget_images or "all"
            writer.writerow([*about, line.runs, len(line.reasons), *values, *forgotten])
    return out.getvalue()


def to_json(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """All that the tables hold and more, not rounded; what is not known is None."""
    return [dataclasses.asdict(each) for each in found]


def title(comparison: Comparison) -> str:
    """What the table is about."""
    what = repr(comparison.class_name) if comparison.class_name else f"{len(comparison.forgotten)} classes"
    seeds = len(comparison.seeds)
    return f"{comparison.model}, {comparison.source}: forgetting {what}, {seeds} seed{'s' * (seeds != 1)}"


def beside(comparison: Comparison) -> list[str]:
    """What a reader needs beside the numbers: the original, the masks, the retain data, what failed."""
    said = []
    if comparison.train_accuracy and comparison.test_accuracy:
        accuracies = cell(comparison.train_accuracy, 2), cell(comparison.test_accuracy, 2)
        said.append(
            "Original over all classes: {} % of the training, {} % of the test images".format(*accuracies)
        )
    if comparison.retain_images:
        said.append(
            f"RA and the attacks: {comparison.retain_images:,} training images of the other classes, drawn "
            "once, the same in all runs"
        )
    if comparison.threads:
        said.append(f"Each run in a process of its own, threads: {', '.join(map(str, comparison.threads))}")
    for line in comparison.lines:
        if line.density:
            share = Stat(100 * line.density.mean, None, line.density.runs)
            said.append(f"{line.label}: the mask holds {cell(share, 2)} % of the weights")
    reads = {line.name: line.retain for line in comparison.lines if line.method not in (ORIGINAL, RETRAIN)}
    said += [f"{name} needs retain data: {retain}" for name, retain in reads.items() if retain]
    said += smallest(comparison)
    for line in comparison.lines:
        for reason in dict.fromkeys(line.reasons):
            count = line.reasons.count(reason)
            said.append(f"{line.label}: {count} of {line.runs + len(line.reasons)} runs failed: {reason}")
    return said


def smallest(comparison: Comparison) -> list[str]:
    """For each method and source of forget images the smallest number that sufficed; empty where a
    comparison has one number only."""
    said = []
    for lines in amounts.series(comparison).values():
        if len(lines) > 1:
            first = amounts.smallest(lines, comparison)
            found = "none sufficed" if first is None else f"{first.forget_images or 'all'} sufficed"
            tried = ", ".join(str(line.forget_images or "all") for line in lines)
            said.append(f"{lines[0].name}, forgetting {tried} {lines[0].forget_from} images: {found}")
    return [*said, *([amounts.SUFFICED] if said else [])]


def hyperparameters(found: Sequence[Comparison]) -> list[str]:
    """A line for each method: the batch and every field of its configuration."""
    lines = {}
    for line in (line for each in found for line in each.lines):
        fields = ", ".join(f"{name} {value}" for name, value in line.config.items())
        batch = f"batch {line.batch}" if line.batch else ""
        lines[line.method, line.variant] = f"{line.name}: {', '.join(filter(None, (batch, fields)))}"
    return [text for (method, _), text in lines.items() if method != ORIGINAL]


def cell(stat: Stat | None, digits: int) -> str:
    """`mean ± std`, without the latter for one run; a `>` in front of what reached a limit."""
    if stat is None:
        return NOT_KNOWN
    spread = "" if stat.std is None else f" ± {number(stat.std, digits)}"
    return f"{'>' * stat.at_least}{number(stat.mean, digits)}{spread}"


def _cells(line: Line) -> list[str]:
    retain = ("shipped" if line.on_device else "yes") if line.retain else "no"
    return [
        line.label,
        NOT_KNOWN if line.method == ORIGINAL else retain,
        *(cell(line.stats[name], digits) for name, (_, digits) in METRICS.items()),
    ]
