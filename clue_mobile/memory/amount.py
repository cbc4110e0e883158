"""Amounts of memory as people write them."""

from __future__ import annotations

import re

from clue_mobile.errors import ClueError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str, option: str) -> int:
    """64MB as 64,000,000, 48MiB as 48 * 2^20. Raises ClueError naming `option` for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in _UNITS:
        raise ClueError(f"{option} must be a number with a unit of KB, MB, GB, KiB, MiB or GiB, not {text!r}")
    return int(float(found[1]) * _UNITS[found[2].upper()])
