"""The picture of what forgetting did: energies before and after, and the accuracy of each class."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart with any colour vision: Okabe and Ito, https://jfly.uni-koeln.de/color/
FORGET, RETAIN = "#D55E00", "#0072B2"
BEFORE, HIGHLIGHT = "#B8BEC4", "#FBE9DD"
INK, FAINT = "#222222", "#D9DDE1"
DASHED: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 3))}
DIAMOND: dict[str, Any] = {"markersize": 5, "markerfacecolor": "white", "markeredgecolor": INK}

BINS = 60
TAIL = 0.5
"""Percent of each distribution that may lie beyond either end of the axis, so that it stays readable."""

MAX_BARS = 20


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A model at one moment.

    `forget_energy` and `retain_energy` are the energies [N] of images of the forgotten and of the other
    classes (see `clue_mobile.evaluate.energy`), `per_class` the accuracy of each class in percent.
    """

    forget_energy: npt.NDArray[np.floating]
    retain_energy: npt.NDArray[np.floating]
    per_class: Sequence[float]


def forgetting_picture(
    path: str | os.PathLike[str],
    before: Snapshot,
    after: Snapshot,
    *,
    classes: Sequence[str],
    forget_class: int,
    retrain_per_class: Sequence[float] | None = None,
    title: str | None = None,
) -> Path:
    """Draw the energies of forget and retain set before and after, and per-class accuracies, into one PNG.

    Of more than MAX_BARS classes the forgotten one and those whose accuracy changed most are drawn. Missing
    folders are made, and the file appears whole or not at all; its path is returned. Raises ClueError if
    matplotlib is missing, the lists of accuracies are not as long as `classes`, `forget_class` is none of
    them, or an energy list is empty or not finite.
    """
    _check(before, after, retrain_per_class, classes, forget_class)
    with drawn(path, (11, 6.4)) as figure:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.0, 1.25))
        top = figure.add_subplot(grid[0, 0])
        bottom = figure.add_subplot(grid[1, 0], sharex=top, sharey=top)
        _draw_energies(top, bottom, before, after)
        right = figure.add_subplot(grid[:, 1])
        _draw_accuracies(right, before, after, retrain_per_class, classes, forget_class)
        heading = title or f"Forgetting the class “{classes[forget_class]}”"
        figure.suptitle(heading, fontsize=14, color=INK, weight="bold")
    return Path(path)


@contextlib.contextmanager
def drawn(path: str | os.PathLike[str], size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of `size` inches to draw on, which becomes the PNG at `path`, whole or not at all.

    Missing folders are made. Raises ClueError if matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ClueError("pictures need matplotlib: pip install 'clue-mobile[export]'") from error
    with mpl.rc_context({"text.parse_math": False}):  # a class name with dollar signs is no formula
        figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(unfinished, format="png")
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def _check(
    before: Snapshot,
    after: Snapshot,
    retrain_per_class: Sequence[float] | None,
    classes: Sequence[str],
    forget_class: int,
) -> None:
    if not 0 <= forget_class < len(classes):
        raise ClueError(f"there is no class {forget_class} among {len(classes)} classes")
    lists = {"before": before.per_class, "after": after.per_class}
    if retrain_per_class is not None:
        lists["retrain"] = retrain_per_class
    for name, values in lists.items():
        if len(values) != len(classes):
            raise ClueError(f"{name} has {len(values)} accuracies for {len(classes)} classes")
    for name, energies in (
        ("forget set before", before.forget_energy),
        ("retain set before", before.retain_energy),
        ("forget set after", after.forget_energy),
        ("retain set after", after.retain_energy),
    ):
        if not len(energies) or not np.isfinite(energies).all():
            raise ClueError(f"the energies of the {name} are empty or not all finite")


def _draw_energies(top: Axes, bottom: Axes, before: Snapshot, after: Snapshot) -> None:
    """Draw two histograms into each panel, on one set of bins."""
    every = (before.forget_energy, before.retain_energy, after.forget_energy, after.retain_energy)
    low = min(float(np.percentile(energies, TAIL)) for energies in every)
    high = max(float(np.percentile(energies, 100 - TAIL)) for energies in every)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    for axes, name, snapshot in ((top, "before", before), (bottom, "after", after)):
        for label, energies, colour in (
            ("retain set", snapshot.retain_energy, RETAIN),
            ("forget set", snapshot.forget_energy, FORGET),
        ):
            # Counted beside the axis, so that a bar is a share of all images and not only of those shown.
            share = 100 * np.histogram(energies, edges)[0] / len(energies)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(share, edges, color=colour, linewidth=1.6, label=label)
            axes.axvline(float(np.median(energies)), color=colour, **DASHED)
        axes.set_title(f"Energy {name}", loc="left", fontsize=11, color=INK)
        axes.set_ylabel("images per bin (%)", color=INK)
        plain(axes, "y")
    top.tick_params(labelbottom=False)
    top.plot([], [], color=INK, label="median", **DASHED)
    top.legend(frameon=False, loc="upper right")
    bottom.locator_params(axis="x", nbins=6)
    bottom.set_xlabel("energy  −log Σ exp(logit)", color=INK)


def _draw_accuracies(
    axes: Axes,
    before: Snapshot,
    after: Snapshot,
    retrain_per_class: Sequence[float] | None,
    classes: Sequence[str],
    forget_class: int,
) -> None:
    """Draw horizontal bars, since class names are long; the retrained model is a mark on them."""
    from matplotlib.patches import Patch

    shown = _shown(before, after, forget_class)
    places = np.arange(len(shown))
    height = 0.38
    forgotten = shown.index(forget_class)
    plain(axes, "x")
    axes.axhspan(forgotten - 0.5, forgotten + 0.5, color=HIGHLIGHT, zorder=0)
    colours = [FORGET if label == forget_class else RETAIN for label in shown]
    axes.barh(places - height / 2, [before.per_class[label] for label in shown], height, color=BEFORE)
    axes.barh(places + height / 2, [after.per_class[label] for label in shown], height, color=colours)
    keys: list[Artist] = [
        Patch(color=BEFORE, label="before"),
        Patch(color=RETAIN, label="after"),
        Patch(color=FORGET, label="after, forgotten class"),
    ]
    if retrain_per_class is not None:
        accuracies = [retrain_per_class[label] for label in shown]
        keys += axes.plot(accuracies, places, "D", clip_on=False, label="retrained without it", **DIAMOND)
    value = after.per_class[forget_class]
    axes.annotate(
        f"{value:.1f}",
        (value, forgotten + height / 2),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=FORGET,
    )
    axes.set_yticks(places, [classes[label] for label in shown])
    axes.tick_params(axis="y", pad=8)
    name = axes.get_yticklabels()[forgotten]
    name.set_color(FORGET)
    name.set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy (%)", color=INK)
    part = f" ({len(shown)} of {len(classes)} classes)" if len(shown) < len(classes) else ""
    axes.set_title(f"Accuracy per class{part}", loc="left", fontsize=11, color=INK)
    axes.legend(
        handles=keys, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4, fontsize=9
    )


def _shown(before: Snapshot, after: Snapshot, forget_class: int) -> list[int]:
    """Return the classes to draw, in their order: all, or the forgotten one and those that changed most."""
    change = np.abs(np.subtract(after.per_class, before.per_class))
    change[forget_class] = np.inf
    return sorted(np.argsort(-change, kind="stable")[:MAX_BARS].tolist())


def plain(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Leave the axes their baseline and faint grid lines along one direction, behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)
    axes.tick_params(colors=INK, length=0)
