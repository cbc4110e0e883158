"""Prints a SHA-256 for each kind of random number: run on this processor and on the emulated one."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from pi_runtime import rng

positions = np.arange(64)
drawn = {
    "normal": rng.normal(2**40 + 5, 16, 3, positions, (1, 33, 33)),
    "uniform": rng.uniform(2**40 + 5, 17, 3, positions, (7,), 0.5, 1.0),
    "permutation": rng.permutation(2**40 + 5, 3, 1001),
    "augmentation": np.concatenate([np.ravel(each) for each in rng.augmentation(5, 2, positions)]),
}
print(
    json.dumps(
        {name: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for name, a in drawn.items()}
    )
)
