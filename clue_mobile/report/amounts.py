"""How many images of a class a method needs: the lines of a comparison by the number of forget images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from clue_mobile.report.comparison import ORIGINAL, RETRAIN, Comparison, Line
from clue_mobile.report.plots import DASHED, FAINT, INK, drawn, plain

FORGOTTEN, KEPT = 10.0, 5.0
SUFFICED = (
    f"A number suffices where UA, over all training images of the class, is at most {FORGOTTEN:g} % and TA "
    f"at most {KEPT:g} points below the original's"
)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
_MARKS = {"train": "o", "test": "s"}


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
    """UA (solid) and TA (dashed) of each method against the number of forget images, error bars one standard
    deviation; circles for training images, squares for test images. "all" stands at the right."""
    shown = {key: lines for key, lines in series(comparison).items() if len(lines) > 1}
    numbers = sorted({line.forget_images for lines in shown.values() for line in lines if line.forget_images})
    places = {number: at for at, number in enumerate([*numbers, None])}
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(dict(shown))}
    with drawn(path, (8, 5)) as figure:
        axes = figure.add_subplot()
        plain(axes, "y")
        for (name, source), lines in shown.items():
            for metric, style in (("ua", "-"), ("ta", "--")):
                points = [
                    (places[line.forget_images], stat) for line in lines if (stat := line.stats[metric])
                ]
                axes.errorbar(
                    [at for at, _ in points], [stat.mean for _, stat in points],
                    [stat.std or 0 for _, stat in points], color=colours[name, source], linestyle=style,
                    marker=_MARKS[source], capsize=3, linewidth=1.5,
                    label=f"{name}, {source} images" if metric == "ua" else None,
                )  # fmt: skip
        axes.axhline(FORGOTTEN, color=FAINT, zorder=0, **DASHED)
        axes.set_xticks(list(places.values()), [str(number or "all") for number in places])
        axes.set_ylim(-3, 103)
        axes.set_xlabel("images of the class that the method was told to forget")
        axes.set_ylabel("accuracy (%): UA solid, TA dashed")
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(title, loc="left", fontsize=11, color=INK)
    return path
