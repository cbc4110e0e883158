"""Probes and held-out samples once more, pixel by pixel as docs/runtime-contract.md says, without arrays.

Run as a script it writes contract/verify_kat.json, known answers for runtimes in other languages; a test
holds that the package gives the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pi_runtime import rng

FILE = Path(__file__).parents[2] / "contract" / "verify_kat.json"
# N, H, W, C, seed, count: odd sizes leave pixels over at the right and at the bottom
CASES = [(3, 8, 8, 1, 5, 10), (2, 7, 10, 3, 2**53 - 1, 15), (1, 3, 3, 1, 0, 5), (5, 16, 12, 3, 7, 10)]
HOLDOUTS = [(5, 0.2, 1), (19, 0.25, 5), (300, 0.1, 2**53 - 1), (4, 0.2, 3), (6, 0.5, 0)]


def pixel(i: int, y: int, x: int, c: int) -> int:
    """The pixels of the images of a case."""
    return (37 * i + 11 * y + 5 * x + 101 * c + i * y * x) % 256


def words(seed: int, kind: int, position: int, count: int) -> list[int]:
    return [int(word) for word in rng.words(seed, 3, kind, [position], count)[0]]


def value(case: tuple[int, ...], kind: int, position: int, y: int, x: int, c: int) -> int:
    """One pixel of probe `position` of a kind."""
    n, height, width, channels, seed, _ = case
    grid = (4, 2, 2, 4, 0)[kind]
    drawn = words(seed, kind, position, 4 + grid * grid * (channels if kind < 2 else 1))
    first, second = (drawn[place] * n >> 32 for place in (0, 1))
    if kind < 2:
        field = (y * grid // height) * grid + x * grid // width
        return (pixel(first, y, x, c) + (drawn[4 + field * channels + c] >> 24) + 1) // 2
    if kind == 4:
        return min(255, max(0, pixel(first, y, x, c) - pixel(second, y, x, c) + 128))
    high, wide = height // grid, width // grid
    if y >= grid * high or x >= grid * wide:
        return pixel(first, y, x, c)
    order = sorted(range(grid * grid), key=lambda tile: (drawn[4 + tile], tile))
    source = order[y // high * grid + x // wide]
    return pixel(first, source // grid * high + y % high, source % grid * wide + x % wide, c)


def probes(case: tuple[int, ...]) -> bytes:
    _, height, width, channels, _, count = case
    return bytes(
        value(case, kind, position, y, x, c)
        for kind in range(5)
        for position in range(max(1, count // 5))
        for y in range(height)
        for x in range(width)
        for c in range(channels)
    )


def held(n: int, share: float, seed: int) -> list[int]:
    order = list(range(n))
    drawn = [int(word) for word in rng.words(seed, 4, 0, [0], n - 1)[0]]
    for t, word in enumerate(drawn):
        i = n - 1 - t
        j = word * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return sorted(order[n - int(share * n) :])


def answers() -> dict[str, Any]:
    return {
        "about": "Known answers for docs/runtime-contract.md, Verify before swap. The image i of a case has "
        "(37 i + 11 y + 5 x + 101 c + i y x) mod 256 at row y, column x, channel c; sha256 is of the probes' "
        "bytes, probe after probe, row by row, channels last.",
        "probes": [
            {
                **dict(zip(("n", "height", "width", "channels", "seed", "count"), case, strict=True)),
                "sha256": hashlib.sha256(made := probes(case)).hexdigest(),
                "first": list(made[:12]),
            }
            for case in CASES
        ],
        "holdout": [
            {"n": n, "holdout": share, "seed": seed, "held_out": held(n, share, seed)}
            for n, share, seed in HOLDOUTS
        ],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(answers(), indent=1) + "\n", encoding="utf-8")
