"""Safetensors files, read without trusting their header: every number in it is checked before it is used."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import strict_json
from pi_runtime.errors import ClueError
from pi_runtime.files import open_regular

MAX_HEADER = 16 << 20
_MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 1 << 40
DTYPES: Mapping[str, str] = {
    "F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An array of a file: `start` is its first byte from the beginning of the file, `size` its bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a file holds, checked: the arrays by name and the metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The checked header of a safetensors file.

    Every array's bytes are its shape's times its type's, lie in the file, and the arrays fill the file
    without a gap or an overlap. Raises ClueError naming the file.
    """
    try:
        with open_regular(path) as stream:
            return _header(stream, os.fstat(stream.fileno()).st_size)
    except OSError as error:
        raise ClueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # of this module and strict_json
        raise ClueError(f"cannot read {path}: it is no sound safetensors file, {error}") from error


def encoded_header(
    arrays: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str] = {}
) -> bytes:
    """The beginning of a safetensors file whose arrays (type, shape, bytes) follow, in the order of their
    names."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name in sorted(arrays):
        dtype, shape, size = arrays[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read(path: Path, tensor: Tensor) -> NDArray[Any]:
    """The content of an array of the file. Raises ClueError when the file ends before it does."""
    array = np.empty(tensor.shape, DTYPES[tensor.dtype])
    try:
        with open_regular(path) as stream:
            stream.seek(tensor.start)
            view = array.reshape(-1).view(np.uint8).data
            done = 0
            while done < tensor.size:
                count = stream.readinto(view[done:])
                if not count:
                    raise ClueError(f"cannot read {path}: it has become shorter")
                done += count
    except OSError as error:
        raise ClueError(f"cannot read {path}: {error.strerror or error}") from error
    return array


def _header(stream: IO[bytes], size: int) -> Header:
    if size < 8:
        raise ValueError(f"it has {size} bytes")
    (length,) = struct.unpack("<Q", _exactly(stream, 8))
    if length > min(MAX_HEADER, size - 8):
        raise ValueError(f"its header claims {length:,} bytes of {size - 8:,}")
    raw = strict_json.loads(_exactly(stream, length), MAX_HEADER)
    if not isinstance(raw, dict):
        raise ValueError("its header is no JSON object")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not strings")
    data = 8 + length
    tensors = {name: _tensor(name, entry, data) for name, entry in raw.items()}
    end = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if tensor.start != end:
            raise ValueError(f"{name[:100]!r} begins at byte {tensor.start:,} instead of {end:,}")
        end += tensor.size
    if end != size:
        raise ValueError(f"its arrays end at byte {end:,}, the file at {size:,}")
    return Header(tensors, metadata)


def _tensor(name: str, entry: Any, data: int) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name[:100]!r} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name[:100]!r} is of the type {str(dtype)[:20]!r}")
    if not _sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"the shape of {name[:100]!r} is no list of up to {_MAX_DIMENSIONS} sizes")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"the data_offsets of {name[:100]!r} are no begin and end")
    if math.prod(max(1, side) for side in shape) > _MAX_ELEMENTS:  # of which one may be 0
        raise ValueError(f"the shape of {name[:100]!r} is too large")
    size = offsets[1] - offsets[0]
    if size != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{name[:100]!r} has {size:,} bytes, which do not fit its shape and type")
    return Tensor(dtype, tuple(shape), data + offsets[0], size)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts, left = [], size
    while left:
        part = stream.read(left)
        if not part:
            raise ValueError("it ends too early")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
