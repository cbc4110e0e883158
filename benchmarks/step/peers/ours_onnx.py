"""clue-mobile's step on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES
from work import Work

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, ONNX Runtime"
OURS = "onnx"
PACKAGES = ("onnxruntime", "numpy")


def export(work: Work) -> None:
    """See `_ours.export`."""
    _ours.export(work, OURS, work.place("ours_onnx"))


def setup(work: Work) -> Callable[[], float]:
    """See `_ours.setup`."""
    return _ours.setup(work, _ours.engine_of("pi_runtime.onnx_engine", "OnnxEngine"), work.place("ours_onnx"))


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"onnxruntime": metadata.version("onnxruntime")}
