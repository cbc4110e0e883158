"""One image file to the pixels that a model takes: by contract/resize.md, as the device runtimes do it.

So a file gives a model the same pixels here and there, however it is decoded, turned, cropped and resized.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clue_mobile.errors import ClueError
from pi_runtime.images import decode as decoder
from pi_runtime.images.resize import fit

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = decoder.MAX_FILE_BYTES
"""The largest image file that is read."""

MAX_PIXELS = decoder.MAX_PIXELS
"""The largest image that is decoded: a few kilobytes can claim to be gigabytes of pixels."""


def check_input_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (C, H, W); ClueError if C is neither 1 nor 3, or a side is not positive."""
    channels, height, width = input_shape
    if channels not in (1, 3) or height < 1 or width < 1:
        raise ClueError(f"images have 1 or 3 channels and positive sides; the input shape is {input_shape}")
    return channels, height, width


def decode(
    data: bytes, name: str, input_shape: tuple[int, int, int], rule: str = "stretch"
) -> npt.NDArray[np.uint8]:
    """Decode an image file to uint8 [H, W, C] for `input_shape` = (C, H, W); `rule` is the bundle's `fit`.

    Raises ClueError, with `name` in it, for what cannot be decoded or is larger than `MAX_PIXELS`.
    """
    channels, height, width = input_shape
    pixels = decoder.decode(io.BytesIO(data), name, _color(channels), MAX_PIXELS)
    return fit(pixels, height, width, rule)


def to_pixels(image: Image.Image, input_shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Turn a Pillow image into uint8 [H, W, C] for `input_shape` = (C, H, W).

    Raises ClueError for pixels of an unknown range.
    """
    channels, height, width = input_shape
    return fit(decoder.from_pillow(image, "an image", _color(channels)), height, width)


def _color(channels: int) -> str:
    return "L" if channels == 1 else "RGB"
