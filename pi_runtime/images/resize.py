"""The resize of contract/resize.md: antialiased, in whole numbers, the same bytes in every language."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from pi_runtime.errors import ClueError

BITS = 16
MAX_SIDE = 65_535
FITS = ("stretch", "center-crop")
_AT_ONCE = 1 << 21  # elements turned into float at a time

Pixels = NDArray[np.uint8]
_Taps = tuple[tuple[int, NDArray[np.int64]], ...]


@functools.lru_cache(maxsize=64)
def weights(n: int, m: int) -> _Taps:
    """For each of `m` output positions: the first input position that counts, and the weights from there on.

    The weights of an output position are int64, none negative, and add up to 2^16. Raises ClueError for a
    side that is not from 1 to 65,535.
    """
    for side in (n, m):
        if not 1 <= side <= MAX_SIDE:
            raise ClueError(f"a side of {side} pixels cannot be resized: sides are from 1 to {MAX_SIDE}")
    reach = 2 * max(n, m)
    taps = []
    for i in range(m):
        centre = (2 * i + 1) * n
        # j counts where |(2j + 1) m - centre| < reach
        first = max(0, (centre - reach - m) // (2 * m) + 1)
        last = min(n - 1, -((m - centre - reach) // (2 * m)) - 1)
        j = np.arange(first, last + 1, dtype=np.int64)
        height = reach - np.abs((2 * j + 1) * m - centre)
        total = np.cumsum(height)
        all_ = total[-1]
        rounded = ((total << (BITS + 1)) + all_) // (2 * all_)
        taps.append((first, np.diff(rounded, prepend=0)))
    return tuple(taps)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """uint8 [H, W, C] as uint8 [height, width, C]. Raises ClueError for a side beyond 65,535 pixels."""
    if pixels.shape[:2] == (height, width):
        return pixels
    channels = pixels.shape[2]
    # float32 holds whole numbers up to 2^24 exactly, and 255 * 2^16 is below that; float64 up to 2^53. So no
    # sum below is rounded, in whatever order it is added up, and the processor's fast paths can be used.
    down = _first_axis(pixels.reshape(len(pixels), -1), height, np.float32)
    turned = down.reshape(height, -1, channels).transpose(1, 0, 2).reshape(pixels.shape[1], -1)
    across = _first_axis(turned, width, np.float64)
    half = 1 << (2 * BITS - 1)
    sums = across.reshape(width, height, channels).transpose(1, 0, 2).astype(np.int64)
    return ((sums + half) >> (2 * BITS)).astype(np.uint8)


def _first_axis(rows: NDArray[np.generic], size: int, dtype: type[np.floating]) -> NDArray[np.floating]:
    """Weighted sums over the first axis of [n, k]: [size, k]."""
    step = max(1, _AT_ONCE // max(1, rows.shape[1]))
    result = np.zeros((size, rows.shape[1]), dtype)
    for i, (first, taps) in enumerate(weights(len(rows), size)):
        factors = taps.astype(dtype)
        for start in range(0, len(factors), step):
            part = factors[start : start + step]
            result[i] += part @ rows[first + start : first + start + len(part)].astype(dtype)
    return result


def fit(pixels: Pixels, height: int, width: int, rule: str = "stretch") -> Pixels:
    """An image uint8 [H, W, C] at the model's size, by the bundle's rule: "stretch" or "center-crop"."""
    if rule == "center-crop":
        top, left, rows, columns = centre(pixels.shape[0], pixels.shape[1], height, width)
        pixels = pixels[top : top + rows, left : left + columns]
    return resize(pixels, height, width)


def centre(rows: int, columns: int, height: int, width: int) -> tuple[int, int, int, int]:
    """The largest part of the model's shape in the middle of an image: top, left, rows, columns."""
    if columns * height > rows * width:
        kept = max(1, (2 * rows * width + height) // (2 * height))
        return 0, (columns - kept) // 2, rows, kept
    kept = max(1, (2 * columns * height + width) // (2 * width))
    return (rows - kept) // 2, 0, kept, columns
