"""The picture of where a model looks: an image, and the map over it before and after forgetting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clue_mobile.errors import ClueError
from clue_mobile.models.weights import write_atomic
from clue_mobile.report.plots import FORGET, INK, RETAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS = 24
HEAT = "inferno"
OPACITY = 0.55
# Inches: the width of a panel, between panels, above the first row, for the words of a row, below the last.
PANEL, GAP, ABOVE, WORDS, BELOW = 2.15, 0.3, 0.75, 0.62, 0.25


@dataclass(frozen=True, eq=False)
class Look:
    """One model on one image: its map [H, W], 0 or more, its answer, how sure it is of that, and how sure of
    the true class (shares of 1)."""

    heat: npt.NDArray[np.floating]
    answer: str
    sure: float
    true: float


@dataclass(frozen=True, eq=False)
class Shown:
    """A row of the picture: an image uint8 [H, W, C], its class, whether that is the forgotten one."""

    image: npt.NDArray[np.uint8]
    name: str
    forgotten: bool
    before: Look
    after: Look


def maps_picture(
    path: str | os.PathLike[str], rows: Sequence[Shown], *, title: str, kind: str, note: str = ""
) -> Path:
    """Draw a row for each image: the image, before, after; return the path of the PNG.

    Each map's colours reach from 0 to its own highest value, which stands below it, since the values before
    and after have no common scale. kind: what the maps are; note: small print. Missing folders are made, and
    the file appears whole or not at all. Raises ClueError if matplotlib is missing, for no rows or more than
    MAX_ROWS, and for maps that are not finite or not of the image's size.
    """
    _check(rows)
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ClueError("pictures need matplotlib: pip install 'clue-mobile[export]'") from error
    import io

    with mpl.rc_context({"text.parse_math": False}):  # a class name with dollar signs is no formula
        tall = PANEL * max(row.image.shape[0] / row.image.shape[1] for row in rows)
        width, height = 3 * PANEL + 4 * GAP, ABOVE + len(rows) * (tall + WORDS) + BELOW
        figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
        FigureCanvasAgg(figure)
        for at, row in enumerate(rows):
            bottom = height - ABOVE - (at + 1) * (tall + WORDS) + WORDS / 2
            places = [GAP + column * (PANEL + GAP) for column in range(3)]
            _draw_row(
                [figure.add_axes((x / width, bottom / height, PANEL / width, tall / height)) for x in places],
                row,
            )
        for x, heading in zip(places, ("image", f"{kind}, before", f"{kind}, after"), strict=True):
            figure.text(
                (x + PANEL / 2) / width, 1 - (ABOVE - 0.12) / height, heading, ha="center", va="bottom",
                fontsize=11, color=INK, weight="bold",
            )  # fmt: skip
        figure.text(
            0.5, 1 - 0.14 / height, title, ha="center", va="top", fontsize=13, color=INK, weight="bold"
        )
        figure.text(0.5, 0.1 / height, note, ha="center", va="bottom", fontsize=8, color=INK)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, content.getvalue())
    return target


def _check(rows: Sequence[Shown]) -> None:
    if not 0 < len(rows) <= MAX_ROWS:
        raise ClueError(f"a picture of maps takes 1 to {MAX_ROWS} images, not {len(rows)}")
    for row in rows:
        for look in (row.before, row.after):
            if look.heat.shape != row.image.shape[:2]:
                raise ClueError(
                    f"a map of {list(look.heat.shape)} does not lie over an image of {list(row.image.shape)}"
                )
            if not np.isfinite(look.heat).all():
                raise ClueError("a map is not all finite: the model's weights have diverged")


def _draw_row(axes: Sequence[Axes], row: Shown) -> None:
    colour = FORGET if row.forgotten else RETAIN
    for place in axes:
        place.set_xticks([])
        place.set_yticks([])
        for spine in place.spines.values():
            spine.set_color(colour)
            spine.set_linewidth(1.5)
    _image(axes[0], row.image)
    axes[0].set_title(row.name, fontsize=10, color=colour, weight="bold")
    axes[0].set_xlabel("forgotten class" if row.forgotten else "retained class", fontsize=9, color=colour)
    for place, look in ((axes[1], row.before), (axes[2], row.after)):
        peak = float(look.heat.max())
        _image(place, row.image if row.image.shape[-1] == 1 else _grey(row.image))
        place.imshow(look.heat, cmap=HEAT, alpha=OPACITY, vmin=0, vmax=peak if peak > 0 else 1)
        right = look.answer == row.name
        said = f"{look.answer}: {100 * look.sure:.0f} %"
        place.set_title(
            said if right else f"{said} ({row.name}: {100 * look.true:.0f} %)", fontsize=9, color=INK
        )
        place.set_xlabel(f"highest {peak:.2g}" if peak > 0 else "zero everywhere", fontsize=8, color=INK)


def _grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The image without colours, [H, W, 1], so that those of the map are the only ones."""
    return (image @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)


def _image(axes: Axes, image: npt.NDArray[np.uint8]) -> None:
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(image)
