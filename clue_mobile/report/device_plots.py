"""The pictures of a device's log: a request along its time, requests side by side, the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clue_mobile.report.device_log import LoggedRequest
from clue_mobile.report.device_tables import MIB
from clue_mobile.report.plots import BEFORE, DASHED, FAINT, FORGET, INK, RETAIN, drawn, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#882255")
_BESIDE = "load, save, between"


def colours(requests: Sequence[LoggedRequest]) -> dict[str, str]:
    """One colour for each phase, the same in every picture."""
    names = dict.fromkeys(name for request in requests for name in request.phases)
    return {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}


def timeline_picture(path: Path, request: LoggedRequest, colour: dict[str, str]) -> Path | None:
    """Phases, power, memory, step times and temperature along the request; None where no trace was kept."""
    if not request.spans:
        return None
    spans, samples = request.spans, request.samples
    zero = min([spans[0].start, *(sample.moment for sample in samples[:1])])
    names = list(dict.fromkeys(span.phase for span in spans))
    hot = [span for span in spans if span.temperature is not None]
    stepped = [span for span in spans if span.step_ms is not None]
    heights = [0.32 * len(names) + 0.2, *([1.5] if samples else []), 1.1, *([1.1] if stepped else []),
               *([0.9] if hot else [])]  # fmt: skip
    with drawn(path, (10.5, 1.3 + 1.15 * sum(heights))) as figure:
        panels = list(
            figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        )
        top = panels.pop(0)
        plain(top, "x")
        for span in spans:
            # a span shorter than a pixel is drawn as wide as one, so that none is missing
            top.barh(names.index(span.phase), span.end - span.start, 0.72, left=span.start - zero,
                     color=colour.get(span.phase, INK), edgecolor=colour.get(span.phase, INK),
                     linewidth=0.6)  # fmt: skip
        top.set_yticks(range(len(names)), names)
        top.invert_yaxis()
        if samples:
            _draw_power(panels.pop(0), request, zero)
        _draw_spans(panels.pop(0), request, zero, colour, "peak memory\n(MiB)",
                    [(span.peak_mem_bytes or 0) / MIB for span in spans])  # fmt: skip
        if stepped:
            axes = panels.pop(0)
            plain(axes, "y")
            axes.scatter([(s.start + s.end) / 2 - zero for s in stepped], [s.step_ms for s in stepped], s=26,
                         c=[colour.get(s.phase, INK) for s in stepped], zorder=3)  # fmt: skip
            axes.set_ylim(bottom=0)
            axes.set_ylabel("median step\n(ms)", fontsize=9)
        if hot:
            axes = panels.pop(0)
            plain(axes, "y")
            axes.plot(
                [s.end - zero for s in hot], [s.temperature for s in hot], color=FORGET, marker="o", ms=3
            )
            axes.set_ylabel("°C", fontsize=9)
        top.set_xlim(0, max([spans[-1].end, *(sample.moment for sample in samples[-1:])]) - zero)
        figure.align_ylabels()
        figure.supxlabel("seconds since the request began", fontsize=10)
        figure.suptitle(f"{request.name}: {request.status}", fontsize=12, color=INK)
    return path


def _draw_power(axes: Axes, request: LoggedRequest, zero: float) -> None:
    plain(axes, "y")
    times = [sample.moment - zero for sample in request.samples]
    watts = [sample.watts for sample in request.samples]
    whole = request.whole
    kind = whole.get("energy_kind") or "not complete"
    axes.fill_between(times, watts, color=RETAIN, alpha=0.15, linewidth=0)
    axes.plot(
        times, watts, color=RETAIN, linewidth=1.3, marker="o" if len(times) < 60 else None, markersize=2.5
    )
    idle, energy = whole.get("idle_w"), whole.get("energy_j")
    said = [] if energy is None else [f"{energy:,.1f} J {kind}"]
    if idle is not None:
        axes.axhline(idle, color=INK, **DASHED)
        said.append(f"dashed: idle, {idle:.2f} W")
    axes.set_ylim(0, 1.25 * max([*watts, idle or 0]))
    axes.set_ylabel("power (W)", fontsize=9)
    said = [part for part in (*said, whole.get("energy_scope")) if part]
    axes.set_title("; ".join(said), loc="right", fontsize=9, color=INK)


def _draw_spans(
    axes: Axes,
    request: LoggedRequest,
    zero: float,
    colour: dict[str, str],
    label: str,
    values: Sequence[float],
) -> None:
    """A bar for each span, as high as its value."""
    plain(axes, "y")
    for span, value in zip(request.spans, values, strict=True):
        axes.bar(span.start - zero, value, span.end - span.start, align="edge",
                 color=colour.get(span.phase, INK), alpha=0.85, linewidth=0)  # fmt: skip
    axes.set_ylim(0, 1.15 * max([*values, 1e-9]))
    axes.set_ylabel(label, fontsize=9)


def comparison_picture(path: Path, requests: Sequence[LoggedRequest], colour: dict[str, str]) -> Path:
    """Requests side by side: wall time and energy by phase, peak memory, step times."""
    places = range(len(requests))
    with drawn(path, (12, 1.9 + 0.62 * len(requests))) as figure:
        wall, energy, memory, steps = figure.subplots(1, 4, sharey=True, width_ratios=(1.3, 1.3, 0.8, 1.1))
        for axes, title in ((wall, "wall time (s)"), (energy, "energy (J)"), (memory, "peak memory (MiB)"),
                            (steps, "step p50 to p95 (ms)")):  # fmt: skip
            plain(axes, "x")
            axes.set_title(title, fontsize=10, color=INK, loc="left")
            axes.locator_params(axis="x", nbins=5)
            axes.tick_params(axis="x", labelsize=8)
        for place, request in zip(places, requests, strict=True):
            _stack(wall, place, request, "wall_s", colour)
            if request.whole.get("energy_j") is None:
                energy.annotate("not measured", (0, place), xytext=(4, 0), textcoords="offset points",
                                va="center", fontsize=9, color=INK, style="italic")  # fmt: skip
            else:
                _stack(energy, place, request, "energy_j", colour)
            peak = request.whole["peak_mem_bytes"] / MIB
            memory.barh(place, peak, 0.6, color=BEFORE)
            memory.annotate(f"{peak:,.0f}", (peak, place), xytext=(4, 0), textcoords="offset points",
                            va="center", fontsize=8, color=INK)  # fmt: skip
            stepped = [
                (name, r["step_ms"]) for name, r in request.phases.items() if r["step_ms"]["p50"] is not None
            ]
            for at, (name, step) in enumerate(stepped):
                height = place + (at - (len(stepped) - 1) / 2) * 0.6 / max(len(stepped), 1)
                steps.plot((step["p50"], step["p95"]), (height, height), color=colour[name], linewidth=2)
                steps.plot(step["p50"], height, "o", color=colour[name], markersize=5)
        for axes in (wall, energy, memory):
            axes.margins(x=0.2)
            axes.set_xlim(left=0)
        if all(request.whole.get("energy_j") is None for request in requests):
            energy.set_xticks([])
        steps.set_xlim(left=0)
        wall.set_yticks(places, [request.name for request in requests])
        wall.set_ylim(len(requests) - 0.5, -0.5)
        from matplotlib.patches import Patch

        keys = [*colour.items(), (_BESIDE, FAINT)]
        figure.legend(handles=[Patch(color=c, label=name) for name, c in keys], loc="outside lower center",
                      ncols=len(keys), frameon=False, fontsize=9)  # fmt: skip
    return path


def _stack(axes: Axes, place: int, request: LoggedRequest, key: str, colour: dict[str, str]) -> None:
    left, whole = 0.0, float(request.whole[key])
    estimated = key == "energy_j" and request.whole.get("energy_kind") == "estimated"
    hatch = "///" if estimated else None
    for name, record in request.phases.items():
        value = record.get(key) or 0.0
        axes.barh(
            place, value, 0.6, left=left, color=colour[name], hatch=hatch, edgecolor="white", linewidth=0.4
        )
        left += value
    axes.barh(
        place,
        max(0.0, whole - left),
        0.6,
        left=left,
        color=FAINT,
        hatch=hatch,
        edgecolor="white",
        linewidth=0.4,
    )
    said = f"{whole:,.3g}" if whole < 100 else f"{whole:,.0f}"
    axes.annotate(f"{said}{' estimated' if estimated else ''}", (max(left, whole), place), xytext=(4, 0),
                  textcoords="offset points", va="center", fontsize=8, color=INK)  # fmt: skip


def evidence_picture(path: Path, request: LoggedRequest) -> Path | None:
    """The forget accuracy from before to after, and each metric's mean by epoch; None where none is known."""
    evidence = request.evidence
    before, after = evidence.get("forget_accuracy_before"), evidence.get("forget_accuracy_after")
    metrics = {
        f"{phase}: {name}": values
        for phase, found in evidence.get("metrics", {}).items()
        for name, values in found.items()
        if values
    }
    if before is None and not metrics:
        return None
    with drawn(path, (3.3 * (1 + len(metrics)), 3.1)) as figure:
        first, *others = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
        plain(first, "y")
        stops = evidence.get("stops", [])
        points = [before, *(stop["accuracy"] for stop in stops), after]
        known = [(at, value) for at, value in enumerate(points) if value is not None]
        first.plot(
            [at for at, _ in known],
            [value for _, value in known],
            color=FORGET,
            marker="o",
            ms=4,
            clip_on=False,
        )
        first.set_ylim(0, 100)
        first.set_xticks([0, len(points) - 1], ["before", "after"])
        first.set_title("accuracy on the samples to forget (%)", fontsize=9, color=INK, loc="left")
        if stops:
            first.set_xlabel(f"{len(stops)} checks in between", fontsize=9)
        for axes, (name, values) in zip(others, metrics.items(), strict=True):
            plain(axes, "y")
            axes.plot(range(1, len(values) + 1), values, color=RETAIN, marker="o", ms=4)
            axes.locator_params(axis="x", integer=True)
            axes.set_xlabel("epoch", fontsize=9)
            axes.set_title(f"{name}, mean of the epoch", fontsize=9, color=INK, loc="left")
        figure.suptitle(request.name, fontsize=11, color=INK)
    return path
