"""Decoded images kept between runs in $XDG_CACHE_HOME/clue-mobile/images (else ~/.cache/clue-mobile/images).

Only sets of MIN_IMAGES to MAX_BYTES are kept: smaller ones decode at once, larger ones would fill a disk
unasked. The folder may be deleted at any time; whatever is wrong with it costs a decode and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

MIN_IMAGES = 5000
MAX_BYTES = 2**30
VERSION = "2"
"""Changes when the pixels that `pixels.to_pixels` makes of a file change."""


def key(identity: Iterable[str]) -> str:
    """Return the name under which the images that `identity` describes are kept.

    The decoder's versions are part of it, because another one may decode the same file to other pixels.
    """
    import PIL
    from PIL import features

    digest = hashlib.sha256()
    for word in (VERSION, PIL.__version__, str(features.version("libjpeg_turbo")), *identity):
        digest.update(word.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def fetch(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """Return the uint8 images of that name and shape, or None where there are none that can be read."""
    try:
        images = np.load(_path(name), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != shape:
        return None
    return images


def keep(name: str, images: npt.NDArray[np.uint8]) -> None:
    """Keep the images, unless there are too few or too many; a folder that cannot be written is no error."""
    if len(images) < MIN_IMAGES or images.nbytes > MAX_BYTES:
        return
    path = _path(name)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                np.save(file, images, allow_pickle=False)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def _path(name: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else Path.home() / ".cache"
    return base / "clue-mobile" / "images" / f"{name}.npy"
