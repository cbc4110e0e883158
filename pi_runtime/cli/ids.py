"""Ids of samples as people write them: 1-3,7."""

from __future__ import annotations

from collections.abc import Iterable

from pi_runtime.errors import ClueError

_MOST = 10_000_000


def ranges(ids: Iterable[int]) -> str:
    """Ids in words, sorted.

    >>> ranges([3, 1, 2, 7])
    '1-3,7'
    """
    parts: list[list[int]] = []
    for number in sorted(ids):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def parse(text: str) -> list[int]:
    """The ids that `ranges` wrote, each once, in the order given. Raises ClueError for anything else.

    >>> parse("1-3,7")
    [1, 2, 3, 7]
    """
    ids: dict[int, None] = {}
    for part in text.split(","):
        first, separator, last = part.strip().partition("-")
        low, high = (first, last) if separator else (first, first)
        if not (low.isdecimal() and high.isdecimal() and len(low + high) < 40):
            raise ClueError(f"{text!r} are no sample ids: write them like 1-3,7")
        if not int(low) <= int(high) < int(low) + _MOST:
            raise ClueError(f"{part.strip()!r} is no range of sample ids: write it like 1-3")
        ids |= dict.fromkeys(range(int(low), int(high) + 1))
    return list(ids)
