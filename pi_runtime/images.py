"""Images from files, folders and .npz archives, as uint8 pixels of the model's input size."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Source:
    """Images of a file: uint8 [N, H, W, C], a name for each, and int64 labels [N] where the file has them."""

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    labels: NDArray[np.int64] | None


def read(paths: Sequence[Path], bundle: Bundle) -> Iterator[Source]:
    """Read image files, folders of them (subfolders too, in the order of their names) and .npz archives.

    An archive holds `x` or `images`, uint8 [N, H, W, C] (or [N, H, W]) at the model's input size, and maybe
    `y`, the index of the class of each. Raises ClueError naming the file for anything else.
    """
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not found:
                raise ClueError(f"{path} has no images ({', '.join(SUFFIXES)})")
            for file in found:
                yield Source(_image(file, bundle)[None], (str(file),), None)
        elif not path.exists():
            raise ClueError(f"{path} does not exist")
        elif path.suffix.lower() == ".npz":
            yield _archive(path, bundle)
        else:
            yield Source(_image(path, bundle)[None], (str(path),), None)


def batched(sources: Iterator[Source], most: int) -> Iterator[Source]:
    """The same images, those of single files put together up to `most` at a time."""
    for labelled, group in itertools.groupby(sources, lambda source: source.labels is not None):
        if labelled:
            yield from group
            continue
        while some := list(itertools.islice(group, most)):
            images = np.concatenate([source.images for source in some])
            yield Source(images, tuple(name for source in some for name in source.names), None)


def _image(path: Path, bundle: Bundle) -> NDArray[np.uint8]:
    """One image as uint8 [H, W, C]: upright, transparency on black, stretched to the input size."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    _, height, width = bundle.input_shape
    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode in ("F", "I") or image.mode.startswith("I;"):
                raise ClueError(f"{path} has more than 8 bits a channel: convert it to 8 bits first")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
            image = image.convert(bundle.color)
            if image.size != (width, height):
                # Pillow widens the filter when it shrinks an image, so this is antialiased.
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image, np.uint8).reshape(height, width, -1)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ClueError(f"{path} is no image that can be read: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's answers to damaged files
        if isinstance(error, ClueError):
            raise
        raise ClueError(f"cannot read the image {path}: {error}") from error


def _archive(path: Path, bundle: Bundle) -> Source:
    channels, height, width = bundle.input_shape
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = next((key for key in ("x", "images") if key in archive), None)
            if key is None:
                raise ClueError(f"{path} has neither x nor images (it has {', '.join(archive) or 'nothing'})")
            images, y = archive[key], archive.get("y")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ClueError):
            raise
        raise ClueError(f"{path} is no readable .npz archive of plain arrays") from error
    if images.ndim == 3 and channels == 1:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
        raise ClueError(
            f"{path}: {key} is {images.dtype} {list(images.shape)}, "
            f"it must be uint8 [N, {height}, {width}, {channels}]"
        )
    if not len(images):
        raise ClueError(f"{path} has no images")
    if y is not None and (y.shape != images.shape[:1] or y.dtype.kind not in "iu"):
        raise ClueError(f"{path}: y is {y.dtype} {list(y.shape)}, it must be one whole number for each image")
    names = tuple(f"{path}[{i}]" for i in range(len(images)))
    return Source(images, names, None if y is None else y.astype(np.int64))
