"""How many images of a class a method needs: the lines of a comparison by the number of forget images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from clue_mobile.report.comparison import ORIGINAL, RETRAIN, Comparison, Line
from clue_mobile.report.plots import DASHED, INK, drawn, plain

FORGOTTEN, KEPT = 10.0, 5.0
SUFFICED = (
    f"A number suffices where UA, over all training images of the class, is at most {FORGOTTEN:g} % and TA "
    f"at most {KEPT:g} points below the original's"
)
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#882255",
    "#44AA99",
)  # fmt: skip
_STYLES = {"train": ("-", "o"), "test": ("--", "s")}


def series(comparison: Comparison) -> dict[tuple[str, str], list[Line]]:
    """By (name, source of the images) the lines of one method, from few images to all."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in comparison.lines:
        if line.method not in (ORIGINAL, RETRAIN) and not line.block:
            found.setdefault((line.name, line.forget_from), []).append(line)
    for lines in found.values():
        lines.sort(key=lambda line: math.inf if line.forget_images is None else line.forget_images)
    return found


def smallest(lines: Sequence[Line], comparison: Comparison) -> Line | None:
    """The first line from which on, for all larger numbers too, the mean UA and TA are as SUFFICED says."""
    original = next((line for line in comparison.lines if line.method == ORIGINAL and not line.block), None)
    before = original.stats["ta"] if original else None
    first = None
    for line in reversed(lines):
        ua, ta = line.stats["ua"], line.stats["ta"]
        if not (before and ua and ta) or ua.mean > FORGOTTEN or ta.mean < before.mean - KEPT:
            break
        first = line
    return first


def picture(path: Path, comparison: Comparison, title: str) -> Path:
    """UA (left) and TA (right) of each method against the number of forget images, error bars one standard
    deviation; solid lines for training images, dashed ones for test images. "all" stands at the right."""
    shown = {key: lines for key, lines in series(comparison).items() if len(lines) > 1}
    numbers = sorted({line.forget_images for lines in shown.values() for line in lines if line.forget_images})
    places = {number: at for at, number in enumerate([*numbers, None])}
    names = list(dict.fromkeys(name for name, _ in shown))
    with drawn(path, (11, 5)) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for panel, metric, heading in zip(
            axes, ("ua", "ta"), ("UA: the class", "TA: the others"), strict=True
        ):
            plain(panel, "y")
            for (name, source), lines in shown.items():
                points = [
                    (places[line.forget_images], stat) for line in lines if (stat := line.stats[metric])
                ]
                panel.errorbar(
                    [at for at, _ in points], [stat.mean for _, stat in points],
                    [stat.std or 0 for _, stat in points], color=_COLOURS[names.index(name) % len(_COLOURS)],
                    linestyle=_STYLES[source][0], marker=_STYLES[source][1], capsize=3, linewidth=1.5,
                    label=f"{name}, {source}",
                )  # fmt: skip
            panel.set_xticks(list(places.values()), [str(number or "all") for number in places])
            panel.set_ylim(-3, 103)
            panel.set_xlabel("images of the class to forget")
            panel.set_title(f"{heading} (%)", fontsize=10, color=INK)
        axes[0].axhline(FORGOTTEN, color=INK, zorder=0, **DASHED)
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9
        )
        figure.suptitle(title, fontsize=11, color=INK)
    return path
