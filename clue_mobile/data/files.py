"""Folders and zip archives of class folders.

Both are read by one rule. Below whatever path all images share there is either

    train/CLASS/...jpg  test/CLASS/...jpg  [validation/CLASS/...jpg, or val/]
    CLASS/...jpg                                               all of it is training data

Images may lie deeper below their class folder. Within a class they are ordered by their path as text, so
10.jpg comes before 2.jpg. Hidden files and __MACOSX are passed over. A zip is never extracted.
"""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clue_mobile.data import cache, pixels
from clue_mobile.data.splits import Dataset, Progress, Split, assemble
from clue_mobile.errors import ClueError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}

CHUNK = 256
"""Images that one task decodes."""

SMALL_FILE_BYTES = 8192
"""Below this mean file size one thread decodes: parsing headers holds the interpreter lock, and threads that
wait for each other were slower by half (60,000 JPEGs of 32 x 32, 2 cores)."""


@dataclass(frozen=True)
class _Tree:
    """What a folder or an archive holds: the size of every image file, and every directory, by path parts."""

    images: dict[tuple[str, ...], int]
    directories: set[tuple[str, ...]]


class _Place(NamedTuple):
    """Where an image belongs. Sorting places orders them by split, class and path."""

    split: str
    label: str
    path: tuple[str, ...]


def load_folder(
    source: str,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
    progress: Progress | None,
) -> Dataset:
    """Load a folder of class folders; see `clue_mobile.data.load`."""
    root = Path(source)
    tree = _read_tree(source, _walk(root))

    def read(parts: tuple[str, ...]) -> bytes:
        return root.joinpath(*parts).read_bytes()

    names, places = _layout(source, tree)
    images = _decode_all(source, [place.path for place in places], tree, read, input_shape, progress)
    return _dataset(source, names, places, images, classes, validation_per_class)


def load_zip(
    source: str,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
    progress: Progress | None,
) -> Dataset:
    """Load a zip archive of class folders; see `clue_mobile.data.load`.

    The decoded pixels of a large archive are kept in the user's cache directory (see `cache`) under a key
    made of the archive's size and time, the names, sizes and checksums of its images, and the input shape.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = {info.filename: info for info in archive.infolist()}
            tree = _read_tree(source, ((info.filename, info.file_size) for info in members.values()))
            names, places = _layout(source, tree)
            infos = {place.path: members["/".join(place.path)] for place in places}
            facts = Path(source).stat()
            identity = [str(facts.st_size), str(facts.st_mtime_ns), str(input_shape)]
            identity += [f"{info.filename}\0{info.file_size}\0{info.CRC}" for info in infos.values()]
            key = cache.key(identity)
            shape = (len(places), input_shape[1], input_shape[2], input_shape[0])
            images = cache.fetch(key, shape)
            if images is None:
                images = _decode_all(
                    source, list(infos), tree, lambda parts: archive.read(infos[parts]), input_shape, progress
                )
                cache.keep(key, images)
    except (OSError, zipfile.BadZipFile) as error:
        raise ClueError(f"cannot read the archive {source}: {error}") from error
    return _dataset(source, names, places, images, classes, validation_per_class)


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Yield (path, bytes) of each image file and (path + "/", 0) of each directory.

    Links are followed, but not to a directory that they lie in: that circle would have no end.
    """
    for folder, subfolders, files in os.walk(root, followlinks=True):
        path = Path(folder)
        if any(path.samefile(parent) for parent in path.parents):
            subfolders.clear()
            continue
        below = path.relative_to(root)
        for name in subfolders:
            yield f"{(below / name).as_posix()}/", 0
        for name in files:
            if PurePosixPath(name).suffix.lower() in SUFFIXES:
                try:
                    size = (path / name).stat().st_size
                except OSError as error:
                    raise ClueError(f"cannot read the image {below / name} in {root}: {error}") from error
                yield (below / name).as_posix(), size


def _read_tree(source: str, entries: Iterable[tuple[str, int]]) -> _Tree:
    """Sort entries into images and directories; ClueError for a path that leaves the source."""
    images: dict[tuple[str, ...], int] = {}
    directories: set[tuple[str, ...]] = set()
    for path, size in entries:
        parts = tuple(path.rstrip("/").split("/"))
        if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise ClueError(f"{source} holds the path {path!r}, which is not a plain path inside it")
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if path.endswith("/"):
            directories.add(parts)
        elif PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES:
            images[parts] = size
    if not images:
        raise ClueError(f"no images in {source} (looked for {', '.join(sorted(SUFFIXES))})")
    return _Tree(images, directories)


def _layout(source: str, tree: _Tree) -> tuple[list[str], list[_Place]]:
    """Return the class names, and the place of each image, ordered by split, class and path."""
    folders = [parts[:-1] for parts in tree.images]
    shared = _shared(min(folders), max(folders))
    named = [level for level, part in enumerate(shared) if part in SPLITS]
    root = named[0] if named else len(shared)
    below = {parts[root] for parts in tree.images}
    in_splits = any(parts[root] == "train" and len(parts) > root + 2 for parts in tree.images)
    if in_splits and not below <= SPLITS.keys():
        raise ClueError(
            f"{source} has {min(below - SPLITS.keys())!r} beside train/; "
            f"only {', '.join(sorted(SPLITS))} may be there"
        )
    if below <= SPLITS.keys() - {"train"}:
        raise ClueError(f"{source} has {', '.join(sorted(below))} but no train/CLASS folders")
    if not in_splits and root and all(len(parts) == root + 1 for parts in tree.images):
        root -= 1  # the folder of a single class is part of what all images share
    level = root + 1 if in_splits else root
    places = []
    for parts in tree.images:
        if len(parts) < level + 2:
            raise ClueError(f"the image {'/'.join(parts)} in {source} lies in no class folder")
        places.append(_Place(SPLITS[parts[root]] if in_splits else "train", parts[level], parts))
    with_images = {parts[: level + 1] for parts in tree.images}
    for parts in sorted(tree.directories - with_images):
        if (
            len(parts) == level + 1
            and parts[:root] == shared[:root]
            and (not in_splits or parts[root] in SPLITS)
        ):
            raise ClueError(f"the class folder {'/'.join(parts)} in {source} has no images")
    return sorted({place.label for place in places}), sorted(places)


def _shared(first: tuple[str, ...], last: tuple[str, ...]) -> tuple[str, ...]:
    """Return the leading parts that two paths share. All paths sorted between these two share them too."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(part for part, _ in pairs)


def _decode_all(
    source: str,
    order: list[tuple[str, ...]],
    tree: _Tree,
    read: Callable[[tuple[str, ...]], bytes],
    input_shape: tuple[int, int, int],
    progress: Progress | None,
) -> npt.NDArray[np.uint8]:
    """Decode the images in `order` to uint8 [N, H, W, C]."""
    channels, height, width = input_shape
    images = np.empty((len(order), height, width, channels), dtype=np.uint8)

    def decode_from(start: int) -> int:
        chunk = order[start : start + CHUNK]
        for place, parts in enumerate(chunk, start):
            name = f"{'/'.join(parts)} in {source}"
            if tree.images[parts] > pixels.MAX_FILE_BYTES:
                raise ClueError(
                    f"{name} has {tree.images[parts]:,} bytes; {pixels.MAX_FILE_BYTES:,} are allowed"
                )
            try:
                data = read(parts)
            except Exception as error:  # zipfile's decompressors raise many types on damaged data
                raise ClueError(f"cannot read {name}: {error}") from error
            images[place] = pixels.decode(data, name, input_shape)
        return len(chunk)

    mean_bytes = sum(tree.images[parts] for parts in order) / len(order)
    workers = 1 if mean_bytes < SMALL_FILE_BYTES else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        tasks: list[Future[int]] = [pool.submit(decode_from, start) for start in range(0, len(order), CHUNK)]
        try:
            done = 0
            for task in as_completed(tasks):
                done += task.result()
                if progress is not None:
                    progress(done, len(order))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _dataset(
    source: str,
    names: list[str],
    places: list[_Place],
    images: npt.NDArray[np.uint8],
    classes: tuple[str, ...] | None,
    validation_per_class: int | None,
) -> Dataset:
    """Cut the decoded images, which are ordered by split, into the parts of a Dataset."""
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[place.label] for place in places], dtype=np.int64)
    split_names = np.array([place.split for place in places])
    parts: dict[str, Split] = {}
    for split in sorted(set(SPLITS.values())):
        first, last = np.searchsorted(split_names, split), np.searchsorted(split_names, split, "right")
        parts[split] = Split(images[first:last], labels[first:last])
    return assemble(source, names, parts, classes=classes, validation_per_class=validation_per_class)
