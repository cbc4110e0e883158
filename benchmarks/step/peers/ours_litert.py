"""clue-mobile's step on LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES
from work import Work

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, LiteRT"
OURS = "litert"
PACKAGES = ("ai-edge-litert", "numpy")


def export(work: Work) -> None:
    """See `_ours.export`."""
    _ours.export(work, OURS, work.place("ours_litert"))


def setup(work: Work) -> Callable[[], float]:
    """See `_ours.setup`."""
    return _ours.setup(
        work, _ours.engine_of("pi_runtime.litert_engine", "LitertEngine"), work.place("ours_litert")
    )


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"ai-edge-litert": metadata.version("ai-edge-litert")}
