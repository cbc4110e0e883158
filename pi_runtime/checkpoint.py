"""Where a request is, as one safetensors file: written after each epoch, read when a request goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime.bundle import Bundle, Value
from pi_runtime.engine import Array
from pi_runtime.errors import ClueError
from pi_runtime.files import Chunk, atomic_write
from pi_runtime.tensors import encoded_header

FORMAT = "1"
# A header holds names, shapes and the texts of the metadata; step times are its largest part.
_LARGEST_HEADER = 64 << 20
_UNSIGNED = "0" * 64


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to: only with all of it the same is going on bit-identical to never stopping.

    `base_sha256` is of the weights that the request began with.
    """

    request_id: int
    seed: int
    manifest_sha256: str
    base_sha256: str
    engine: str
    version: str
    threads: int


@dataclass(frozen=True)
class State:
    """Where a request is.

    `cursor` is the number of the next operation, `values` every value's content by name (a cache
    [N, *shape]), `evidence` and `cost` JSON objects.
    """

    cursor: int
    values: Mapping[str, Array]
    evidence: Mapping[str, Any]
    cost: Mapping[str, Any]


def write(path: Path, state: State, identity: Identity, bundle: Bundle) -> None:
    """Write a checkpoint in place of an older one, which stays whole until the new one is on the disk.

    Raises ClueError when the disk fails, or a value whose storage is bits has others than 0 and 1.
    """
    metadata = _metadata(state, identity)
    digest = hashlib.sha256()
    for chunk in _chunks(metadata, _UNSIGNED, state, bundle):
        digest.update(chunk)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    atomic_write(path, _chunks(metadata, digest.hexdigest(), state, bundle), replace=True)


def _metadata(state: State, identity: Identity) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(identity).items()} | {
        "format": FORMAT,
        "cursor": str(state.cursor),
        "evidence": json.dumps(state.evidence, allow_nan=False),
        "cost": json.dumps(state.cost, allow_nan=False),
    }


def _chunks(metadata: Mapping[str, str], sha256: str, state: State, bundle: Bundle) -> Iterator[Chunk]:
    arrays: dict[str, tuple[str, Sequence[int], int]] = {}
    for name, array in state.values.items():
        size = -(-array.size // 8)
        bits = bundle.values[name].storage == "bits"
        arrays[name] = ("U8", [size], size) if bits else ("F32", array.shape, array.nbytes)
    yield encoded_header(arrays, {**metadata, "sha256": sha256})
    for name in sorted(state.values):
        array = np.ascontiguousarray(state.values[name], "<f4")
        yield _pack(name, array) if bundle.values[name].storage == "bits" else array.data


def _pack(name: str, array: Array) -> bytes:
    ones = array == 1
    if not (ones | (array == 0)).all():
        raise ClueError(
            f"value {name} is stored as bits but has others than 0 and 1: export the bundle again"
        )
    return np.packbits(ones, axis=None, bitorder="little").tobytes()


def read(path: Path, bundle: Bundle, n: int) -> tuple[State, Identity] | None:
    """The checkpoint of a request of `n` samples; None when there is none.

    A damaged one (cut off, changed, of another version, not of these values) is removed: None too.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClueError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    try:
        return _parse(content, bundle, n)
    except (ValueError, KeyError, TypeError, struct.error):
        path.unlink(missing_ok=True)
        return None


def _parse(content: bytes, bundle: Bundle, n: int) -> tuple[State, Identity]:
    """Raises ValueError, KeyError, TypeError or struct.error where the content is not a checkpoint."""
    (length,) = struct.unpack_from("<Q", content)
    if length > min(_LARGEST_HEADER, len(content) - 8):
        raise ValueError("the header is longer than the file")
    text, data = content[8 : 8 + length], memoryview(content)[8 + length :]
    header = json.loads(text)
    metadata = header.pop("__metadata__")
    signed = f'"sha256":"{metadata["sha256"]}"'.encode()
    if text.count(signed) != 1:
        raise ValueError("the hash stands elsewhere")
    digest = hashlib.sha256(content[:8] + text.replace(signed, f'"sha256":"{_UNSIGNED}"'.encode()))
    digest.update(data)
    if digest.hexdigest() != metadata["sha256"] or metadata["format"] != FORMAT:
        raise ValueError("the hash or the version is another")
    if header.keys() != bundle.values.keys():
        raise ValueError("it has other values")
    values = {name: _array(header[name], data, value, n) for name, value in bundle.values.items()}
    evidence, cost = json.loads(metadata["evidence"]), json.loads(metadata["cost"])
    identity = Identity(
        int(metadata["request_id"]),
        int(metadata["seed"]),
        metadata["manifest_sha256"],
        metadata["base_sha256"],
        metadata["engine"],
        metadata["version"],
        int(metadata["threads"]),
    )
    return State(int(metadata["cursor"]), values, evidence, cost), identity


def _array(entry: Mapping[str, Any], data: memoryview, value: Value, n: int) -> Array:
    begin, end = entry["data_offsets"]
    shape = (n, *value.shape) if value.role == "cache" else value.shape
    if value.storage == "bits":
        packed: NDArray[np.uint8] = np.frombuffer(data[begin:end], np.uint8)
        return (
            np.unpackbits(packed, count=math.prod(shape), bitorder="little").astype(np.float32).reshape(shape)
        )
    return np.frombuffer(data[begin:end], "<f4").reshape(shape)


def check(found: Identity, here: Identity) -> None:
    """Raise ClueError, naming both, where a checkpoint was made by what would not go on bit-identically."""
    request = f"request {here.request_id}"
    way_out = f"or start it anew (clue-pi cancel {here.request_id}, clue-pi retry {here.request_id})"
    if (found.engine, found.version) != (here.engine, here.version):
        raise ClueError(
            f"{request} was begun with {found.engine} {found.version} and this is "
            f"{here.engine} {here.version}: go on with the engine that began it, {way_out}"
        )
    if found.threads != here.threads:
        raise ClueError(
            f"{request} was begun with {found.threads} threads and this has {here.threads}: "
            f"give --threads {found.threads}, {way_out}"
        )
    for what, one, other in (
        ("bundle", found.manifest_sha256, here.manifest_sha256),
        ("base weights", found.base_sha256, here.base_sha256),
    ):
        if one != other:
            raise ClueError(
                f"{request} was begun with the {what} {one[:12]} and now there are {other[:12]}: "
                f"go on with those that it began with, {way_out}"
            )
    if (found.request_id, found.seed) != (here.request_id, here.seed):
        raise ClueError(
            f"the checkpoint of {request} is of request {found.request_id} with seed {found.seed}, "
            f"not of seed {here.seed}: {way_out[3:]}"
        )
