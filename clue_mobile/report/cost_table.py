"""The table and the two bar charts of `clue-mobile cost`: methods against retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_mobile.report.grid import Table
from clue_mobile.report.plots import DASHED, INK, RETAIN, drawn, plain
from clue_mobile.report.tables import NOT_KNOWN, number

TIMES = ("saliency", "predict", "step", "train")


@dataclass(frozen=True)
class CostRow:
    """A method: latency in seconds, energy in joules (None: not measured), how each came about, their gains.

    `times`: seconds of a run by program; `runs`: how often it runs.
    """

    name: str
    latency_s: float
    latency_how: str
    energy_j: float | None
    energy_how: str
    gain_latency: float | None
    gain_energy: float | None
    times: Mapping[str, float]
    runs: Mapping[str, int]


def to_table(rows: Sequence[CostRow], caption: str, note: str = "") -> Table:
    """Latency and energy of each method, their gains, and the times in ms that they are made of; a * marks
    what is extrapolated."""
    headings = (
        "Method",
        "Latency (s)",
        "Gain",
        "Energy (J)",
        "Gain",
        "Runs",
        *TIMES,
    )
    cells = [
        [
            row.name,
            number(row.latency_s, 2) + _mark(row.latency_how),
            _times(row.gain_latency),
            number(row.energy_j, 2) + (_mark(row.energy_how) if row.energy_j is not None else ""),
            _times(row.gain_energy),
            f"{sum(row.runs.values()):,}",
            *(_milliseconds(row.times.get(name)) for name in TIMES),
        ]
        for row in rows
    ]
    stressed = frozenset(at for at, row in enumerate(rows) if row.name == "Retrain")
    return Table(caption, headings, cells, note=note, stressed=stressed)


def to_json(rows: Sequence[CostRow], **more: Any) -> dict[str, Any]:
    """The rows as JSON-able values, not rounded."""
    return {**more, "rows": [{**vars(row), "times": dict(row.times), "runs": dict(row.runs)} for row in rows]}


def gains_picture(path: Path, rows: Sequence[CostRow], title: str) -> Path:
    """Two bar charts: the gain in energy and in latency of each method, Retrain being 1; hatched bars are
    extrapolated. Where no energy was measured the first says so."""
    shown = [row for row in rows if row.name != "Retrain"]
    with drawn(path, (9, 2.1 + 0.42 * len(shown))) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind, heading in zip(
            panels, ("energy", "latency"), ("gain in energy", "gain in latency"), strict=True
        ):
            plain(axes, "x")
            axes.set_title(f"{heading} (Retrain = 1)", fontsize=10, color=INK, loc="left")
            gains = [row.gain_energy if kind == "energy" else row.gain_latency for row in shown]
            if all(gain is None for gain in gains):
                axes.set_xticks([])
                axes.text(0.5, 0.5, "no energy was measured", transform=axes.transAxes, ha="center",
                          va="center", fontsize=10, color=INK, style="italic")  # fmt: skip
                continue
            for place, (row, gain) in enumerate(zip(shown, gains, strict=True)):
                if gain is None:
                    axes.annotate("not measured", (1, place), xytext=(4, 0),
                                  textcoords="offset points", va="center", fontsize=9, style="italic",
                                  color=INK)  # fmt: skip
                    continue
                how = row.energy_how if kind == "energy" else row.latency_how
                axes.barh(place, gain - 1, 0.62, left=1, color=RETAIN, edgecolor="white", linewidth=0,
                          hatch=None if how == "measured" else "////")  # fmt: skip
                axes.annotate(_times(gain), (max(gain, 1.0), place), xytext=(4, 0),
                              textcoords="offset points", va="center", fontsize=9, color=INK)  # fmt: skip
            axes.set_xscale("log")
            known = [gain for gain in gains if gain is not None]
            axes.set_xlim(min(0.8, 0.7 * min(known)), 3 * max([*known, 1.0]))
            axes.axvline(1, color=INK, **DASHED)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        panels[0].set_yticks(range(len(shown)), [row.name for row in shown])
        panels[0].set_ylim(len(shown) - 0.5, -0.5)
        from matplotlib.patches import Patch

        figure.legend(
            handles=[
                Patch(color=RETAIN, label="the request was measured whole"),
                Patch(facecolor=RETAIN, edgecolor="white", hatch="////",
                      label="extrapolated: runs x measured times"),
            ],
            loc="outside lower center", ncols=2, frameon=False, fontsize=9,
        )  # fmt: skip
        figure.suptitle(title, fontsize=11, color=INK)
    return path


def _mark(how: str) -> str:
    return "" if how == "measured" else "*"


def _times(gain: float | None) -> str:
    if gain is None:
        return NOT_KNOWN
    return f"{gain:,.0f}x" if gain >= 100 else f"{gain:.3g}x"


def _milliseconds(seconds: float | None) -> str:
    return NOT_KNOWN if seconds is None else number(1000 * seconds, 2)
