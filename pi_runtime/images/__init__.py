"""Images from files, folders and .npz archives, as uint8 pixels of the model's size (contract/resize.md)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError
from pi_runtime.images import archive, decode, folders
from pi_runtime.images.decode import MAX_PIXELS as MAX_PIXELS
from pi_runtime.images.decode import SUFFIXES as SUFFIXES
from pi_runtime.images.resize import Pixels, fit

_ARCHIVE_BYTES = 32 << 20  # of an archive's images at a time


@dataclass(frozen=True)
class Source:
    """Images of a file: uint8 [N, H, W, C], a name for each, and int64 labels [N] where the file has them."""

    images: Pixels
    names: tuple[str, ...]
    labels: NDArray[np.int64] | None


class Reader:
    """Reads image files, folders of them (subfolders too, in the order of their paths) and .npz archives.

    An archive holds `x` or `images`, uint8 [N, H, W, C] (or [N, H, W]) at the model's input size, and maybe
    `y`, the index of the class of each; it comes in pieces. `files` is how many files there are in all.
    `unreadable` is told of each image file that cannot be read, and the others are read; when it is None the
    first one raises. Raises ClueError naming the file for anything that is not there or does not fit.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        bundle: Bundle,
        max_pixels: int = MAX_PIXELS,
        unreadable: Callable[[ClueError], None] | None = None,
    ) -> None:
        self._bundle, self._max_pixels = bundle, decode.check_limit(max_pixels)
        self._unreadable = unreadable
        self._paths: list[Path] = []
        for path in paths:
            if path.is_dir():
                self._paths += folders.find(path)
            elif not path.exists():
                raise ClueError(f"{path} does not exist")
            else:
                self._paths.append(path)

    @property
    def files(self) -> int:
        """How many files there are."""
        return len(self._paths)

    def __iter__(self) -> Iterator[Source]:
        for path in self._paths:
            if path.suffix.lower() == ".npz":
                yield from self._archive(path)
                continue
            try:
                source = Source(self._image(path)[None], (str(path),), None)
            except ClueError as error:
                if self._unreadable is None:
                    raise
                self._unreadable(error)
            else:
                yield source

    def _image(self, path: Path) -> Pixels:
        bundle = self._bundle
        _, height, width = bundle.input_shape
        return fit(decode.read(path, bundle.color, self._max_pixels), height, width, bundle.fit)

    def _archive(self, path: Path) -> Iterator[Source]:
        shape = self._bundle.input_shape
        at_once = max(1, _ARCHIVE_BYTES // (shape[0] * shape[1] * shape[2]))
        for pixels, labels, first in archive.read(path, shape, len(self._bundle.classes), at_once):
            names = tuple(f"{path}[{first + i}]" for i in range(len(pixels)))
            yield Source(pixels, names, labels)


def batched(sources: Iterator[Source] | Reader, most: int) -> Iterator[Source]:
    """The same images, those of single files put together up to `most` at a time."""
    for labelled, group in itertools.groupby(sources, lambda source: source.labels is not None):
        if labelled:
            yield from group
            continue
        waiting: list[Source] = []
        for source in group:
            if waiting and sum(len(each.images) for each in waiting) + len(source.images) > most:
                yield _together(waiting)
                waiting = []
            waiting.append(source)
        if waiting:
            yield _together(waiting)


def _together(sources: Sequence[Source]) -> Source:
    images = np.concatenate([source.images for source in sources])
    return Source(images, tuple(name for source in sources for name in source.names), None)
