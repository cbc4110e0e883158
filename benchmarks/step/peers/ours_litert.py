"""clue-mobile's step on LiteRT."""

from __future__ import annotations

from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, LiteRT"
OURS = "litert"
PACKAGES = ("ai-edge-litert", "numpy")
export, setup = _ours.row("ours_litert", OURS, _ours.engine_of("pi_runtime.litert_engine", "LitertEngine"))


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"ai-edge-litert": metadata.version("ai-edge-litert")}
