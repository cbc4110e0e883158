"""clue-mobile's step on ExecuTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES
from work import Work

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, ExecuTorch"
OURS = "executorch"
PACKAGES = ("executorch", "torch")


def export(work: Work) -> None:
    """See `_ours.export`."""
    _ours.export(work, OURS, work.place("ours_executorch"))


def setup(work: Work) -> Callable[[], float]:
    """See `_ours.setup`."""
    return _ours.setup(
        work,
        _ours.engine_of("clue_mobile.engines.executorch", "ExecutorchEngine"),
        work.place("ours_executorch"),
    )


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"executorch": metadata.version("executorch")}
