"""Images made of a request's samples and noise, on which old and new weights are compared without any image
of the other classes (docs/runtime-contract.md, "The retain-free signal"). Whole numbers only, so that every
language makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pi_runtime import rng

Images = NDArray[np.uint8]
Int64 = NDArray[np.int64]

KINDS: Final = ("mix", "mix", "tiles", "tiles", "difference")
_GRIDS: Final = (4, 2, 2, 4, 0)
_NONE: Final = np.float32(-np.inf)


def make(images: Images, seed: int, count: int) -> Images:
    """`count` probes (rounded down to a multiple of the five kinds, at least one of each) from the samples.

    images: uint8 [N, H, W, C], N at least 1. Returns uint8 [M, H, W, C], kind after kind.
    """
    each = np.arange(max(1, count // len(KINDS)))
    parts = []
    for number, (kind, grid) in enumerate(zip(KINDS, _GRIDS, strict=True)):
        cells = grid * grid * (images.shape[3] if kind == "mix" else 1)
        words = rng.words(seed, rng.STREAM_PROBES, number, each, 4 + cells)
        first, second = (_pick(images, words[:, place]) for place in (0, 1))
        match kind:
            case "mix":
                made = (first + _mosaic(words[:, 4:], grid, images.shape) + 1) >> 1
            case "tiles":
                made = _shuffled(first, words[:, 4:], grid)
            case _:
                made = np.clip(first - second + 128, 0, 255)
        parts.append(made.astype(np.uint8))
    return np.concatenate(parts)


def _pick(images: Images, words: NDArray[np.uint32]) -> Int64:
    """An image for each word, as whole numbers."""
    chosen = (words.astype(np.uint64) * np.uint64(len(images))) >> np.uint64(32)
    return images[chosen.astype(np.int64)].astype(np.int64)


def _mosaic(words: NDArray[np.uint32], grid: int, shape: Sequence[int]) -> Int64:
    """grid x grid fields of one random colour each, stretched over the image; [M, H, W, C]."""
    _, height, width, channels = shape
    fields = (words >> np.uint32(24)).astype(np.int64).reshape(-1, grid, grid, channels)
    rows, columns = np.arange(height) * grid // height, np.arange(width) * grid // width
    return fields[:, rows[:, None], columns]


def _shuffled(images: Int64, words: NDArray[np.uint32], grid: int) -> Int64:
    """The image's grid x grid tiles in the order that sorts their words; what is left over at the right and
    at the bottom stays."""
    order = np.argsort(words, axis=1, kind="stable")
    height, width = images.shape[1] // grid, images.shape[2] // grid
    made = images.copy()
    everyone = np.arange(len(images))[:, None, None]
    for tile in range(grid * grid):
        top, left = tile // grid * height, tile % grid * width
        source = order[:, tile, None, None]
        rows = source // grid * height + np.arange(height)[:, None]
        columns = source % grid * width + np.arange(width)
        made[:, top : top + height, left : left + width] = images[everyone, rows, columns]
    return made


@dataclass(frozen=True)
class Comparison:
    """`kept`: percent of the probes whose best class is the same before and after, the forgotten classes left
    aside. `largest_share_before` and `_after`: percent that fell on one and the same of all classes."""

    probes: int
    kept: float
    largest_share_before: float
    largest_share_after: float


def compare(before: NDArray[np.float32], after: NDArray[np.float32], forgotten: Sequence[int]) -> Comparison:
    """Compare logits [M, K] of the same probes; the first of equal logits is the best."""
    left = np.array([label not in forgotten for label in range(before.shape[1])])
    best = [np.where(left, logits, _NONE).argmax(axis=1) for logits in (before, after)]
    kept = 100.0 * int(np.count_nonzero(best[0] == best[1])) / len(before)
    return Comparison(len(before), kept, _largest_share(before), _largest_share(after))


def _largest_share(logits: NDArray[np.float32]) -> float:
    return 100.0 * int(np.bincount(logits.argmax(axis=1)).max()) / len(logits)
