"""The pictures of a comparison (average gaps, UA against RA, accuracy of each class) and of tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clue_mobile.errors import ClueError
from clue_mobile.report.comparison import ORIGINAL, RETRAIN, Comparison, Line
from clue_mobile.report.plots import BEFORE, DASHED, FAINT, FORGET, INK, RETAIN, drawn, plain

SHIPPED = "#009E73"  # of the same palette
KINDS = {
    "without retain data": RETAIN,
    "with what a bundle ships": SHIPPED,
    "with retain data": FORGET,
    "reference": BEFORE,
}


def kind(line: Line) -> str:
    """Which of KINDS the line's method is."""
    if line.method in (ORIGINAL, RETRAIN):
        return "reference"
    if not line.retain:
        return "without retain data"
    return "with what a bundle ships" if line.on_device else "with retain data"


def gaps_picture(path: Path, comparison: Comparison, title: str) -> Path:
    """Horizontal bars of the average gap, error bars one standard deviation, methods without retain data
    first, each group from the smallest gap up. Raises ClueError where no gap is known."""
    shown = [(line, stat) for line in comparison.lines if (stat := line.stats["gap"]) is not None]
    if not shown:
        raise ClueError("no average gap is known: each needs a retrained model of the class")
    order = list(KINDS)
    shown.sort(key=lambda pair: (order.index(kind(pair[0])), pair[1].mean))
    with drawn(path, (8, 1.4 + 0.36 * len(shown))) as figure:
        axes = figure.add_subplot()
        plain(axes, "x")
        for place, (line, stat) in enumerate(shown):
            axes.barh(place, stat.mean, 0.66, color=KINDS[kind(line)])
            if stat.std is not None:
                axes.errorbar(stat.mean, place, xerr=stat.std, color=INK, capsize=3, linewidth=1.2)
            end = stat.mean + (stat.std or 0)
            axes.annotate(
                f"{stat.mean:.2f}", (end, place), xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=9, color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [line.label for line, _ in shown])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel("average gap to retraining (points; error bars: 1 standard deviation over seeds)")
        _legend(figure, [line for line, _ in shown])
        axes.set_title(title, loc="left", fontsize=11, color=INK)
    return path


def scatter_picture(path: Path, comparison: Comparison, title: str) -> Path:
    """UA against RA with error bars; the retrained model's point is where dashed lines cross."""
    with drawn(path, (8, 6)) as figure:
        axes = figure.add_subplot()
        plain(axes, "y")
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        shown = [line for line in comparison.lines if line.stats["ua"] and line.stats["ra"]]
        for line in shown:
            ua, ra = line.stats["ua"], line.stats["ra"]
            assert ua is not None
            assert ra is not None
            axes.errorbar(
                ua.mean, ra.mean, xerr=ua.std, yerr=ra.std, fmt="o", color=KINDS[kind(line)], capsize=2,
                markersize=7, markeredgecolor="white",
            )  # fmt: skip
            axes.annotate(
                line.label,
                (ua.mean, ra.mean),
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=9,
                color=INK,
            )
            if line.method == RETRAIN:
                axes.axvline(ua.mean, color=INK, zorder=0, **DASHED)
                axes.axhline(ra.mean, color=INK, zorder=0, **DASHED)
        axes.margins(0.12)
        axes.set_xlabel("UA: accuracy on the forget set (%)")
        axes.set_ylabel("RA: accuracy on the retain set (%)")
        _legend(figure, shown)
        axes.set_title(title, loc="left", fontsize=11, color=INK)
    return path


def classes_picture(path: Path, found: Sequence[Comparison], classes: Sequence[str]) -> Path:
    """The accuracy on the test images of each class, methods as rows; a panel for each comparison, the
    forgotten class coloured. Raises ClueError where no run has finished."""
    panels = [(each, [line for line in each.lines if line.per_class]) for each in found]
    panels = [(each, lines) for each, lines in panels if lines]
    if not panels:
        raise ClueError("no run has finished, so there is no accuracy to draw")
    heights = [1.1 + 0.34 * len(lines) for _, lines in panels]
    with drawn(path, (2.8 + 0.62 * len(classes), 0.4 + sum(heights))) as figure:
        every = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (each, lines) in zip(every, panels, strict=True):
            values = np.array([line.per_class for line in lines])
            image = axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
            for row, column in np.ndindex(values.shape):
                axes.text(
                    column, row, f"{values[row, column]:.0f}", ha="center", va="center", fontsize=8,
                    color="white" if values[row, column] < 55 else INK,
                )  # fmt: skip
            axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
            axes.set_yticks(range(len(lines)), [line.label for line in lines])
            axes.tick_params(colors=INK, length=0)
            for label, name in zip(axes.get_xticklabels(), classes, strict=True):
                if name in each.forgotten:
                    label.set_color(FORGET)
                    label.set_fontweight("bold")
            axes.set_title(f"forgetting {each.class_name}", loc="left", fontsize=11, color=INK)
        figure.colorbar(image, ax=every.tolist(), label="accuracy on test images (%)")
    return path


def trials_picture(path: Path, trials: Sequence[Mapping[str, float]], title: str) -> Path:
    """Tuning: each trial's accuracies on validation images, forgotten class against the others, numbered; the
    best is coloured. A trial has number, value, forget, retain; at least one is needed."""
    best = min(trials, key=lambda trial: trial["value"])
    with drawn(path, (8, 6)) as figure:
        axes = figure.add_subplot()
        plain(axes, "y")
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        for trial in trials:
            chosen = trial is best
            axes.plot(trial["forget"], trial["retain"], "o", color=FORGET if chosen else RETAIN, markersize=8)
            text = f"{trial['number']:.0f}" + (f" (best: {trial['value']:.2f})" if chosen else "")
            axes.annotate(
                text, (trial["forget"], trial["retain"]), xytext=(6, 5), textcoords="offset points",
                fontsize=9, color=INK,
            )  # fmt: skip
        axes.margins(0.12)
        axes.set_xlabel("validation images of the forgotten class: accuracy (%)")
        axes.set_ylabel("validation images of the other classes: accuracy (%)")
        axes.set_title(title, loc="left", fontsize=11, color=INK)
    return path


def _legend(figure: object, lines: Sequence[Line]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    assert isinstance(figure, Figure)
    present = {kind(line) for line in lines}
    keys = [Patch(color=colour, label=name) for name, colour in KINDS.items() if name in present]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
