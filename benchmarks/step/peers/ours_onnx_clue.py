"""clue-mobile's step on ONNX Runtime with our own kernels; CLUE_KERNELS names the library."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import _ours
from _ours import FOLDERS, LOSSES
from work import Work

__all__ = ["FOLDERS", "LOSSES", "OURS", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "clue-mobile, ONNX Runtime with own kernels"
OURS = "onnx-clue"
PACKAGES = ("onnxruntime", "numpy")


def export(work: Work) -> None:
    """See `_ours.export`."""
    _ours.export(work, OURS, work.place("ours_onnx_clue"))


def setup(work: Work) -> Callable[[], float]:
    """See `_ours.setup`."""
    engine = _ours.engine_of("pi_runtime.onnx_engine", "OnnxClueEngine")
    return _ours.setup(work, engine, work.place("ours_onnx_clue"))


def versions() -> dict[str, str]:
    """What it was measured with."""
    return {"onnxruntime": metadata.version("onnxruntime")}
