"""One image file to the pixels that a model takes: the choices a decoder leaves open are made here, once.

They are those of the device runtimes, so that a file gives a model the same pixels here and there.

- The EXIF orientation is applied; of an animation the first frame counts.
- Transparent pixels are composited on black; palettes, CMYK and YCbCr become RGB.
- Grey from colour is Pillow's luma (ITU-R 601); grey becomes colour by repeating it three times.
- Grey of more than 8 bits is refused: its range is not known.
- An image of another size is stretched to the model's with Pillow's antialiased bilinear filter; one that
  already has that size is left as it is.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 64 * 2**20
"""The largest image file that is read."""

MAX_PIXELS = 80_000_000
"""The largest image that is decoded: a few kilobytes can claim to be gigabytes of pixels."""


def check_input_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (C, H, W); ClueError if C is neither 1 nor 3, or a side is not positive."""
    channels, height, width = input_shape
    if channels not in (1, 3) or height < 1 or width < 1:
        raise ClueError(f"images have 1 or 3 channels and positive sides; the input shape is {input_shape}")
    return channels, height, width


def decode(data: bytes, name: str, input_shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Decode an image file to uint8 [H, W, C] for `input_shape` = (C, H, W).

    Raises ClueError, with `name` in it, for what cannot be decoded or is larger than `MAX_PIXELS`.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ClueError(f"{image.width} x {image.height} pixels; {MAX_PIXELS:,} are allowed")
            return to_pixels(image, input_shape)
    except ClueError as error:
        raise ClueError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise ClueError(f"cannot read the image {name}: {error}") from error


def to_pixels(image: Image.Image, input_shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Turn a Pillow image into uint8 [H, W, C] for `input_shape` = (C, H, W).

    Raises ClueError for grey of more than 8 bits.
    """
    from PIL import Image, ImageOps

    channels, height, width = input_shape
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ClueError(
            f"images of mode {image.mode} have more than 8 bits a channel: convert them to 8 bits"
        )
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, coloured).convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)
