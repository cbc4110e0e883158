"""Weights files: safetensors with a few float32 arrays, the same keys in the bundle and every generation."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Bundle, Shape
from pi_runtime.engine import Array
from pi_runtime.errors import ClueError
from pi_runtime.files import Chunk, atomic_write, sha256_file


class WeightsFile(Mapping[str, Array]):
    """The float32 arrays of a safetensors file, each read from the disk when asked for and not kept.

    A request needs the served weights at its start and again on a reset; a copy held all along would be a
    third one of each. Raises ClueError when the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self._keys = sorted(file.keys())

    def __getitem__(self, key: str) -> Array:
        if key not in self._keys:
            raise KeyError(key)
        with self._open() as file:
            array: Array = file.get_tensor(key)
        if array.dtype != np.float32:
            raise ClueError(f"{self.path}: {key} is {array.dtype}, it must be float32")
        return array

    def typed(self, key: str, dtype: type[np.generic]) -> NDArray[Any]:
        """An array of another type. Raises ClueError when there is none of this name and type."""
        with self._open() as file:
            array: NDArray[Any] | None = file.get_tensor(key) if key in self._keys else None
        if array is None or array.dtype != dtype:
            found = "missing" if array is None else array.dtype
            raise ClueError(f"{self.path}: {key} is {found}, it must be {np.dtype(dtype)}")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def shape(self, key: str) -> Shape | None:
        """The shape of an array without reading it, None when there is none of that name."""
        if key not in self._keys:
            return None
        with self._open() as file:
            return tuple(file.get_slice(key).get_shape())

    def _open(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self.path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise ClueError(f"cannot read {self.path}: {error}") from error


def read(path: Path, sha256: str, bundle: Bundle) -> WeightsFile:
    """A weights file whose SHA-256 and every shape that the manifest expects were checked.

    Raises ClueError naming the file when it is missing, was changed or does not fit the bundle.
    """
    if sha256_file(path) != sha256:
        raise ClueError(f"weights {path} were changed: their SHA-256 is not the recorded one")
    arrays = WeightsFile(path)
    for value in bundle.values.values():
        key = value.weights_key
        if key is not None and arrays.shape(key) != value.shape:
            found = "missing" if key not in arrays else list(arrays.shape(key) or ())
            raise ClueError(f"weights {path}: {key} is {found}, the bundle needs {list(value.shape)}")
    return arrays


def write(path: Path, arrays: Mapping[str, Array]) -> str:
    """Write a weights file atomically; returns its SHA-256. Raises ClueError (see `files.atomic_write`).

    The arrays go to the file one by one: `safetensors.numpy.save` would first hold a copy of all of them.
    """
    return atomic_write(path, _serialise(arrays))


def _serialise(arrays: Mapping[str, Array]) -> Iterator[Chunk]:
    header: dict[str, object] = {}
    offset = 0
    for key in sorted(arrays):
        array = arrays[key]
        header[key] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for key in sorted(arrays):
        yield np.ascontiguousarray(arrays[key], "<f4").data
