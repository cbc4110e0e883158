"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bars
from work import GEMM

Cells = Mapping[str, Mapping[str, Any]]

HEAD = """# The training step: results

Written by `make bench-step` from `results/*.json`; README.md says how each figure is measured. ratio: to
eager PyTorch NCHW, median over rounds in which all rows take turns (in brackets: of processor time);
below 1 is faster. A row marked ¹ has no momentum in its optimizer: its second ratio is to eager without
momentum, and so are its losses. peak: of a fresh process; above before: peak minus the memory before the
first step. start: process start to the end of the first step. In brackets behind memory and start: the
ratio to eager PyTorch.
"""
COLUMNS = (
    "row",
    "ms",
    "ratio",
    "GFLOP/s",
    "of GEMM peak",
    "peak MB",
    "above before MB",
    "start s",
    "installed MB",
)


def document(cells: Cells) -> str:
    """Everything: the bars, then a table for each cell."""
    lines = [HEAD, "## Bars\n", *bars.table(cells), ""]
    for name, cell in cells.items():
        lines += ["", *section(name, cell)]
    return "\n".join(lines).rstrip() + "\n"


def section(name: str, cell: Mapping[str, Any]) -> list[str]:
    """One cell: its facts, its rows from fast to slow, the first losses, what did not run and why."""
    rows = cell["rows"]
    machine = cell["machine"]
    busy = [row["others_busy"] for row in rows.values() if row.get("others_busy") is not None]
    shared = (
        f" Other programs used {min(busy):.0%} to {max(busy):.0%} of the processors meanwhile."
        if busy
        else ""
    )
    threads = f"{cell['threads']} thread{'s' * (cell['threads'] > 1)}"
    lines = [
        f"## {cell['title']}, batch {cell['batch']}, {threads}, {cell['loss']} (`{name}`)",
        "",
        f"{cell['parameters']:,} parameters, {cell['gflop']:.2f} GFLOP a step, "
        f"SGD lr {cell['lr']} momentum 0.9. "
        f"{machine['cpu']}, {machine['cpus']} processors, {' '.join(machine['instructions'])}, "
        f"commit {cell['commit']}.{shared}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * (len(COLUMNS) - 1),
    ]
    fine = {key: row for key, row in rows.items() if row["status"] == "ok" and key != GEMM}
    lines += [line(row) for row in sorted(fine.values(), key=lambda row: row["ratio"])]
    if GEMM in rows:
        lines += ["", f"{rows[GEMM]['title']}: {rows[GEMM]['gflops']:.1f} GFLOP/s ({versions(rows[GEMM])})."]
    for key, row in rows.items():
        if row["status"] != "ok":
            lines += ["", f"{row['title']} (`{key}`): **{row['status']}**: {row['reason']}."]
    lines += ["", "First losses:", "", "```"]
    for key, row in rows.items():
        if row["losses"] and key != GEMM:
            mark = "" if row["status"] == "ok" else f"   {row['status']}"
            lines.append(f"{' '.join(f'{loss:8.4f}' for loss in row['losses'])}  {row['title']}{mark}")
    lines += ["```", ""]
    for row in fine.values():
        lines.append(f"- {row['title']}: {versions(row)}{'; ' + row['note'] if row['note'] else ''}")
    return lines


def line(row: Mapping[str, Any]) -> str:
    """A row of the table."""
    ratio = f"{row['ratio']:.2f} ({row['cpu_ratio']:.2f})"
    if row.get("ratio_plain") is not None and not row["momentum"]:
        ratio += f", {row['ratio_plain']:.2f}¹"
    peak = row.get("of_gemm_peak")
    values = (
        row["title"] + ("" if row["momentum"] else " ¹"),
        f"{row['ms']:.1f}" if row["ms"] < 100 else f"{row['ms']:,.0f}",
        ratio,
        f"{row['gflops']:.1f}",
        "" if peak is None else f"{peak:.0%}",
        _with_ratio(row["peak_rss"] / 1e6, row.get("peak_rss_ratio"), "{:.0f}"),
        _with_ratio(row["peak_minus_before"] / 1e6, row.get("peak_minus_before_ratio"), "{:.0f}"),
        _with_ratio(row["start_s"], row.get("start_s_ratio"), "{:.2f}"),
        "" if row["installed_bytes"] is None else f"{row['installed_bytes'] / 1e6:,.0f}",
    )
    return "| " + " | ".join(values) + " |"


def _with_ratio(value: float, ratio: float | None, form: str) -> str:
    return form.format(value) + ("" if ratio is None else f" ({ratio:.2f})")


def versions(row: Mapping[str, Any]) -> str:
    """Packages and their versions."""
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())
