"""The random crop and flip of training images, on stored pixels.

The draws are `rng.augmentation`; contract/rng.md, section 8, says what is done with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pi_runtime.errors import ClueError


def crop_flip(
    images: npt.NDArray[np.uint8],
    dy: npt.NDArray[np.int64],
    dx: npt.NDArray[np.int64],
    flip: npt.NDArray[np.bool_],
    pad: int = 4,
) -> npt.NDArray[np.uint8]:
    """Pad each image with `pad` black pixels on every side, cut its size out again, mirror it if asked.

    `images` is uint8 [B, H, W, C] and is not changed. `dy` and `dx` (int [B], 0 .. 2 * pad) are the top and
    left edge of the cut in the padded image, so dy = dx = pad leaves an image where it is; `flip` (bool [B])
    swaps left and right after the cut. Returns a new uint8 [B, H, W, C]. Raises ClueError for another type or
    shape, or a shift outside its range.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ClueError(
            f"images must be uint8 [B, H, W, C], but they are {images.dtype} with {images.ndim} dimensions."
        )
    count, height, width, _ = images.shape
    if pad < 0:
        raise ClueError(f"pad must not be negative, but it is {pad}.")
    for name, shift in (("dy", dy), ("dx", dx)):
        if shift.shape != (count,) or shift.dtype.kind not in "iu":
            raise ClueError(f"{name} must be one whole number for each of the {count} images.")
        if count and (int(shift.min()) < 0 or int(shift.max()) > 2 * pad):
            raise ClueError(f"{name} must be from 0 to {2 * pad} with a padding of {pad}.")
    if flip.shape != (count,) or flip.dtype != np.bool_:
        raise ClueError(f"flip must be one true or false for each of the {count} images.")

    out = np.zeros_like(images)
    # Copying the part that stays in view needs no padded copy of the batch.
    for b, (down, right, mirrored) in enumerate(zip(dy.tolist(), dx.tolist(), flip.tolist(), strict=True)):
        y, to_y = _overlap(down - pad, height)
        x, to_x = _overlap(right - pad, width)
        target = out[b, :, ::-1] if mirrored else out[b]
        target[to_y, to_x] = images[b, y, x]
    return out


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """The source and target range of one axis when target place p shows source place p + shift."""
    start, stop = max(0, shift), min(size, size + shift)
    stop = max(start, stop)
    return slice(start, stop), slice(start - shift, stop - shift)
