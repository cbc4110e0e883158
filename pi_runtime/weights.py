"""Weights files: safetensors with a few float32 arrays, the same keys in the bundle and every generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import tensors
from pi_runtime.bundle import Bundle, Shape
from pi_runtime.engine import Array
from pi_runtime.errors import ClueError
from pi_runtime.files import Chunk, atomic_write, sha256_file


class WeightsFile(Mapping[str, Array]):
    """The float32 arrays of a safetensors file, each read from the disk when asked for and not kept.

    A request needs the served weights at its start and again on a reset; a copy held all along would be a
    third one of each. Raises ClueError when the file cannot be read or its header is not sound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors = tensors.read_header(path).tensors

    def __getitem__(self, key: str) -> Array:
        tensor = self._tensors[key]
        if tensor.dtype != "F32":
            raise ClueError(f"{self.path}: {key} is {tensor.dtype}, it must be F32 (float32)")
        return tensors.read(self.path, tensor)

    def typed(self, key: str, dtype: type[np.generic]) -> NDArray[Any]:
        """An array of another type. Raises ClueError when there is none of this name and type."""
        tensor = self._tensors.get(key)
        if tensor is None or np.dtype(tensors.DTYPES[tensor.dtype]) != dtype:
            found = "missing" if tensor is None else tensor.dtype
            raise ClueError(f"{self.path}: {key} is {found}, it must be {np.dtype(dtype)}")
        return tensors.read(self.path, tensor)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._tensors))

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, key: str) -> Shape | None:
        """The shape of an array without reading it, None when there is none of that name."""
        return self._tensors[key].shape if key in self._tensors else None


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
    yield tensors.encoded_header({key: ("F32", array.shape, array.nbytes) for key, array in arrays.items()})
    for key in sorted(arrays):
        yield np.ascontiguousarray(arrays[key], "<f4").data
