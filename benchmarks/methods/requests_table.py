"""The rows of other_requests.py as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
RETRAIN = "Retrain"


def table(rows: Sequence[Row]) -> str:
    """A table for each kind (and model, data, classes, share): means and standard deviations over seeds; of
    samples also the distance of UA from the mean of the retrained models."""
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        place = tuple(str(row[name]) for name in ("kind", "model", "source", "share"))
        groups.setdefault((*place, ", ".join(row["classes"])), {})[row["key"]] = row
    return "\n".join(_group(place, list(own.values())) for place, own in groups.items())


def _group(place: Sequence[str], rows: Sequence[Row]) -> str:
    kind, model, source, share, classes = place
    seeds = len({row["seed"] for row in rows})
    whole = "" if kind == "sequential" else f", share {share}"
    lines = [f"## {kind}: {model}, {source}, class {classes}{whole}, {seeds} seed{'s' * (seeds != 1)}", ""]
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for state in row.get("states", []):
            cells.setdefault((row["title"], state["after"]), []).append(state)
    columns = list(next(iter(cells.values()))[0]["scores"]) if cells else []
    reference = [
        state["scores"]["UA"]
        for (title, _), found in cells.items()
        for state in found
        if kind == "samples" and title == RETRAIN
    ]
    headings = ["Method", "After", *columns, *(["UA gap"] if reference else []), "Time (s)"]
    lines += [f"| {' | '.join(headings)} |", f"|---|---|{'---:|' * (len(headings) - 2)}"]
    for (title, after), found in cells.items():
        values = [spread([state["scores"][name] for state in found]) for name in columns]
        if reference:
            gaps = [abs(state["scores"]["UA"] - statistics.fmean(reference)) for state in found]
            values.append("-" if title == RETRAIN else spread(gaps))
        times = [state["wall_s"] for state in found if state["wall_s"] is not None]
        values.append(f"{statistics.fmean(times):.2f}" if times and title != RETRAIN else "-")
        lines.append(f"| {' | '.join([title, after or '-', *values])} |")
    failed: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["status"] == "failed":
            failed[row["title"], row["reason"]] = failed.get((row["title"], row["reason"]), 0) + 1
    lines += [
        f"\n{title}: {count} of {seeds} runs failed: {reason}" for (title, reason), count in failed.items()
    ]
    return "\n".join([*lines, ""])


def spread(values: Sequence[float]) -> str:
    """mean ± sample standard deviation; the mean alone of one value."""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
