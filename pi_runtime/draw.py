"""Draws for the random streams of a manifest and for golden inputs, from the numbers of rng.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import rng
from pi_runtime.bundle import Random
from pi_runtime.engine import Array

_GOLDEN_STREAM = 8


def random(random: Random, seed: int, epoch: int, positions: NDArray[np.int64], repeat: int) -> Array:
    """One draw of a stream for each position, float32 [B, *shape]; `repeat` as in `plan.Place`."""
    rows = random.shape[:-1] if random.distribution == "onehot" else random.shape
    block = repeat * -(-math.prod(rows) // 4)
    place = (seed, random.stream, epoch, positions, rows)
    match random.distribution:
        case "normal":
            return rng.normal(*place, block_offset=block)
        case "uniform":
            return rng.uniform(*place, random.low, random.high, block_offset=block)
        case _:
            drawn = rng.integers(*place, random.classes, block_offset=block)
            return np.eye(random.classes, dtype=np.float32)[drawn]


def golden(draw: Mapping[str, Any], seed: int, port: int, index: int) -> Array:
    """Draw `index` of input number `port` as contract/golden.md says, float32 [length]; not for "stored"."""
    length, a, b = draw["length"], draw.get("a", 0.0), draw.get("b", 1.0)
    place = (seed, _GOLDEN_STREAM, port, [index], (length,))
    match draw["distribution"]:
        case "normal":
            return (a + b * rng.normal(*place)[0].astype(np.float64)).astype(np.float32)
        case "uniform":
            return rng.uniform(*place, a, b)[0]
        case "bernoulli":
            return (rng.uniform(*place, 0.0, 1.0)[0] < a).astype(np.float32)
        case "constant":
            return np.full(length, a, np.float32)
        case _:
            width = int(a)
            rows = np.eye(width, dtype=np.float32)[np.arange(length // width) % width]
            return rows.reshape(-1)
