"""clue-mobile's step on ONNX Runtime with our own kernels; CLUE_KERNELS names the library."""

from __future__ import annotations

from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, ONNX Runtime with own kernels"
OURS = "onnx-clue"
PACKAGES = ("onnxruntime", "numpy")
export, setup = _ours.row("ours_onnx_clue", OURS, _ours.engine_of("pi_runtime.onnx_engine", "OnnxClueEngine"))


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"onnxruntime": metadata.version("onnxruntime")}
