"""clue-mobile's step on ONNX Runtime."""

from __future__ import annotations

from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, ONNX Runtime"
OURS = "onnx"
PACKAGES = ("onnxruntime", "numpy")
export, setup = _ours.row("ours_onnx", OURS, _ours.engine_of("pi_runtime.onnx_engine", "OnnxEngine"))


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"onnxruntime": metadata.version("onnxruntime")}
