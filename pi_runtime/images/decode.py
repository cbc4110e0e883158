"""From an image file to upright 8-bit pixels (the table in contract/resize.md); hostile files are refused."""

from __future__ import annotations

import functools
import io
import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime.errors import ClueError
from pi_runtime.files import open_regular
from pi_runtime.images.resize import MAX_SIDE, Pixels

if TYPE_CHECKING:
    from PIL import Image

# Pillow's other formats are not needed, and some start programs (EPS) or have no limits.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 1 << 26
MOST_PIXELS = 89_478_485  # beyond this Pillow itself begins to refuse
MAX_FILE_BYTES = 256 << 20
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_STRIPE = 1 << 20  # pixels converted at a time: besides the decoded image only the result is held whole


@functools.cache
def _silence() -> None:
    """Pillow tells of damaged metadata on stderr. Not by catch_warnings: images are read in threads."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def check_limit(max_pixels: int) -> int:
    """The limit itself. Raises ClueError when no decoder could keep it."""
    if not 1 <= max_pixels <= MOST_PIXELS:
        raise ClueError(f"a limit of {max_pixels:,} pixels an image is not from 1 to {MOST_PIXELS:,}")
    return max_pixels


def read(path: Path, color: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The pixels of a file, uint8 [H, W, C] of its own size; `color` is "RGB" or "L".

    Raises ClueError naming the file: not there, no regular file, empty, too large, no image, damaged.
    """
    try:
        stream = open_regular(path)
    except (OSError, ValueError) as error:
        raise ClueError(
            f"cannot read the image {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            raise ClueError(f"{path} is empty (0 bytes): it is no image")
        if size > MAX_FILE_BYTES:
            raise ClueError(f"{path} has {size:,} bytes: images have up to {MAX_FILE_BYTES:,}")
        return decode(io.BufferedReader(stream), str(path), color, max_pixels)


def decode(stream: IO[bytes], name: str, color: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """`read` for an open file; `name` is for the errors."""
    from PIL import Image, UnidentifiedImageError

    try:
        _silence()
        with Image.open(stream, formats=FORMATS) as image:
            return from_pillow(image, name, color, max_pixels)
    except ClueError:
        raise
    except UnidentifiedImageError as error:
        formats = ", ".join(FORMATS)
        raise ClueError(f"{name} is no image that can be read: it must be one of {formats}") from error
    except Image.DecompressionBombError as error:
        raise ClueError(f"{name} has more pixels than the {max_pixels:,} that are allowed") from error
    except MemoryError as error:
        raise ClueError(f"{name} does not fit in memory: make the image smaller") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise ClueError(f"cannot read the image {name}: {told}") from error


def from_pillow(image: Image.Image, name: str, color: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """`decode` for an image that Pillow has opened and not loaded yet. Raises Pillow's errors, too."""
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise ClueError(
            f"{name} has {width} x {height} pixels: up to {max_pixels:,} and {MAX_SIDE:,} a side are allowed"
        )
    _check_depth(image, name)
    image.load()
    upright = _turns(_orientation(image))
    width, height = image.size  # a TIFF is turned when it is loaded
    pixels = np.empty((height, width, 1 if color == "L" else 3), np.uint8)
    rows = max(1, _STRIPE // max(1, width))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = _convert(image.crop((0, top, width, bottom)), color)
    return np.ascontiguousarray(upright(pixels))


def _check_depth(image: Image.Image, name: str) -> None:
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    bits = {*image.tag_v2.get(258, ())} if image.format == "TIFF" else set()  # type: ignore[attr-defined]
    if image.format == "PPM" and any(tile[0].startswith("ppm") for tile in getattr(image, "tile", ())):
        # Pillow reads text, and other maxima, in Python and by a scaling of its own.
        raise ClueError(f"{name} is text or has another maximum than 255 (grey: or 65,535): convert it first")
    if (image.mode not in _MODES and not deep) or bits - {1, 2, 4, 8, 16}:
        raise ClueError(
            f"{name} has pixels of another kind ({image.mode}): convert it to RGB or grey of 8 bits first"
        )


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # a damaged block of metadata: the picture itself may be whole
        return 1


def _turns(orientation: Any) -> Any:
    """What makes [H, W, C] upright."""
    turns = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }
    return turns.get(orientation, lambda a: a) if isinstance(orientation, int) else lambda a: a


def _convert(image: Image.Image, color: str) -> Pixels:
    """A stripe as uint8 [H, W, C] of RGB or grey."""
    if image.mode.startswith("I"):
        pixels = _upper_byte(image)
    elif image.has_transparency_data:
        pixels = on_black(np.asarray(image.convert("RGBA"), np.uint8))
    elif image.mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"), np.uint8)[..., None]
    else:
        pixels = np.asarray(image.convert("RGB"), np.uint8)
    if pixels.shape[2] == 1:
        return pixels if color == "L" else np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return grey(pixels) if color == "L" else pixels


def _upper_byte(image: Image.Image) -> Pixels:
    samples = np.asarray(image)
    pixels = (samples >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # PNG: one value of grey
        pixels[samples == transparent] = 0
    return pixels[..., None]


def on_black(pixels: Pixels) -> Pixels:
    """RGBA as RGB on black: rounded, halves up."""
    product = pixels[..., :3].astype(np.uint32) * pixels[..., 3:]
    return ((2 * product + 255) // 510).astype(np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """RGB as grey (ITU-R 601, in whole numbers)."""
    parts: NDArray[np.uint32] = pixels.astype(np.uint32)
    luma = 19595 * parts[..., 0] + 38470 * parts[..., 1] + 7471 * parts[..., 2] + 32768
    return (luma >> 16).astype(np.uint8)[..., None]
