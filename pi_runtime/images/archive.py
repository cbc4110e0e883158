"""Images from .npz archives: read in pieces, by sizes that were checked before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime.errors import ClueError
from pi_runtime.images.resize import Pixels

MAX_IMAGES = 1_000_000
MAX_BYTES = 16 << 30
_MAX_HEADER = 10_000
_MAX_MEMBERS = 1_000
_READ = 1 << 20


@dataclass(frozen=True)
class _Array:
    """A .npy inside the archive, of which only the header was read."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read(
    path: Path, input_shape: tuple[int, int, int], classes: int, at_once: int
) -> Iterator[tuple[Pixels, NDArray[np.int64] | None, int]]:
    """Yield (images uint8 [n, H, W, C], labels int64 [n] or None, number of the first), n up to `at_once`.

    Before the first is yielded the whole archive has been checked, its checksums too. Raises ClueError naming
    the file: no archive, other arrays, types or shapes, labels that are no classes, damaged, too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _read(archive, path, input_shape, classes, at_once)
    except ClueError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and numpy's header reader have many on damaged files
        raise _unreadable(path) from error


def _unreadable(path: Path) -> ClueError:
    return ClueError(f"{path} is no readable .npz archive of plain arrays")


def _read(
    archive: zipfile.ZipFile, path: Path, input_shape: tuple[int, int, int], classes: int, at_once: int
) -> Iterator[tuple[Pixels, NDArray[np.int64] | None, int]]:
    channels, height, width = input_shape
    names = [info.filename for info in archive.infolist()]
    if len(names) > _MAX_MEMBERS or len(set(names)) != len(names):
        raise _unreadable(path)
    key = next((key for key in ("x", "images") if f"{key}.npy" in names), None)
    if key is None:
        found = ", ".join(name.removesuffix(".npy") for name in names[:20])
        raise ClueError(f"{path} has neither x nor images (it has {found or 'nothing'})")
    images = _header(archive, path, f"{key}.npy")
    shape = images.shape
    if len(shape) == 3 and channels == 1:
        shape = (*shape, 1)
    if images.dtype != np.uint8 or shape[1:] != (height, width, channels):
        raise ClueError(f"{path}: {key} is {images}, it must be uint8 [N, {height}, {width}, {channels}]")
    if images.fortran:
        raise ClueError(f"{path}: {key} is stored column by column: save numpy.ascontiguousarray of it")
    n = shape[0]
    if not n:
        raise ClueError(f"{path} has no images")
    if n > MAX_IMAGES:
        raise ClueError(f"{path} has {n:,} images: up to {MAX_IMAGES:,} are allowed")
    labels = _labels(archive, path, n, classes) if "y.npy" in names else None
    _check_sum(archive, images.member)
    with archive.open(images.member) as stream:
        _exactly(stream, images.start)
        for first in range(0, n, at_once):
            count = min(at_once, n - first)
            data = _exactly(stream, count * height * width * channels)
            pixels = np.frombuffer(data, np.uint8).reshape(count, height, width, channels)
            yield pixels, None if labels is None else labels[first : first + count], first


def _header(archive: zipfile.ZipFile, path: Path, member: str) -> _Array:
    """The header of a member whose declared sizes fit each other. Raises ClueError or numpy's ValueError."""
    info = archive.getinfo(member)
    with archive.open(info) as stream:
        major = np.lib.format.read_magic(stream)[0]
        if major not in (1, 2):
            raise ValueError("another version of the format")
        reader = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream, max_header_size=_MAX_HEADER)
        start = stream.tell()
    size = math.prod(shape) * dtype.itemsize
    # A header that lies about its size, and an archive that would unpack to more than it says.
    if dtype.hasobject or any(side < 0 for side in shape) or info.file_size != start + size:
        raise _unreadable(path)
    if size > MAX_BYTES:
        raise ClueError(f"{path}: {member} has {size:,} bytes: up to {MAX_BYTES:,} are allowed")
    return _Array(member, shape, dtype, fortran, start)


def _labels(archive: zipfile.ZipFile, path: Path, n: int, classes: int) -> NDArray[np.int64]:
    y = _header(archive, path, "y.npy")
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise ClueError(f"{path}: y is {y}, it must be one whole number for each image")
    with archive.open(y.member) as stream:
        _exactly(stream, y.start)
        given = np.frombuffer(_exactly(stream, n * y.dtype.itemsize), y.dtype)
        if stream.read(1):  # also what makes zipfile compare the checksum
            raise _unreadable(path)
    if given.min() < 0 or given.max() >= classes:
        wrong = given[(given < 0) | (given >= classes)][0]
        raise ClueError(f"{path}: y has {wrong}, which is out of range: the classes are 0 to {classes - 1}")
    return given.astype(np.int64)


def _check_sum(archive: zipfile.ZipFile, member: str) -> None:
    with archive.open(member) as stream:
        while stream.read(_READ):
            pass


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        piece = stream.read(min(_READ, size - done))
        if not piece:
            raise EOFError("the archive ends too early")
        view[done : done + len(piece)] = piece
        done += len(piece)
    return data
