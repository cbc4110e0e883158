"""Hypothesis strategies for files that are nearly right: whole ones, changed at a few places."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Op = tuple[str, float, int, bytes]

# Lengths, offsets and counts are where readers trust most.
NUMBERS = [0, 1, 2, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1]
_BYTES = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from(NUMBERS).flatmap(
        lambda n: st.sampled_from(
            [n.to_bytes(size, order) for size in (1, 2, 4, 8) if n < 256**size for order in ("little", "big")]
        )
    ),
)
_OPS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "put", "insert", "cut", "repeat", "truncate", "splice"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        _BYTES,
    ),
    min_size=1,
    max_size=6,
)


def mutated(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the files with one to six changes; half of all are near its beginning, where headers are."""
    return st.builds(_apply, st.sampled_from(list(seeds)), _OPS, st.sampled_from(list(seeds)), st.booleans())


def _apply(content: bytes, ops: list[Op], other: bytes, head: bool) -> bytes:
    data = bytearray(content)
    for kind, place, count, value in ops:
        reach = min(len(data), 64) if head else len(data)
        at = int(place * reach) if reach else 0
        if kind == "flip" and data:
            data[at] ^= 1 << (count % 8)
        elif kind == "put":
            data[at : at + len(value)] = value
        elif kind == "insert":
            data[at:at] = value
        elif kind == "cut":
            del data[at : at + count]
        elif kind == "repeat":
            data[at:at] = data[at : at + count]
        elif kind == "truncate":
            del data[max(at, 1) :]
        elif kind == "splice":
            data[at:] = other[at:]
    return bytes(data)


_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**53, 2**63, 10**30, 1.0, 4.0, 0.5, -0.0, 1e308,
    "", "a", "params", "x",
    "../x", "/etc/passwd", "a\x00b", "\x1b[31m", "\ud800", "é" * 300, "a" * 5000, [], [0], [1, 2], [[]], {},
    {"a": 1}, {"weights": "params"}, {"run": "step"}, [{"run": "step"}] * 3, {"loop": "epochs", "count": 1e9},
]  # fmt: skip
_JSON_OPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "copy", "rename", "nest"]),
        st.lists(st.integers(0, 1000), min_size=1, max_size=9),
        st.one_of(st.sampled_from(_ODD), st.integers(-5, 300), st.text(max_size=6)),
    ),
    min_size=1,
    max_size=4,
)


def mutated_json(seed: Any) -> st.SearchStrategy[bytes]:
    """A JSON text whose tree was changed at one to four places."""
    return st.builds(lambda ops: _apply_json(seed, ops), _JSON_OPS)


def _apply_json(seed: Any, ops: list[tuple[str, list[int], Any]]) -> bytes:
    root = json.loads(json.dumps(seed))
    for kind, path, odd in ops:
        value = copy.deepcopy(odd)  # a later change must not reach into what it stands for
        here, key = _walk(root, path)
        if here is None:
            continue
        if kind == "set":
            here[key] = value
        elif kind == "delete":
            del here[key]
        elif kind == "copy" and isinstance(here, list):
            here.append(copy.deepcopy(here[key]))
        elif kind == "rename" and isinstance(here, dict):
            here[str(value)] = here.pop(key)
        elif kind == "nest":
            here[key] = [here[key]] if path[0] % 2 else {str(key): here[key]}
    return json.dumps(root).encode()


def _walk(root: Any, path: list[int]) -> tuple[Any, Any]:
    here, found = root, (None, None)
    for step in path:
        if not isinstance(here, dict | list) or not here:
            break
        key = list(here)[step % len(here)] if isinstance(here, dict) else step % len(here)
        found = (here, key)
        here = here[key]
    return found
