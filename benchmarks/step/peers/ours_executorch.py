"""clue-mobile's step on ExecuTorch."""

from __future__ import annotations

from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, ExecuTorch"
OURS = "executorch"
PACKAGES = ("executorch", "torch")
export, setup = _ours.row(
    "ours_executorch", OURS, _ours.engine_of("clue_mobile.engines.executorch", "ExecutorchEngine")
)


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"executorch": metadata.version("executorch")}
