"""torch.compile of the forward pass and the loss (its backward pass with it), and PyTorch's fused SGD."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import _torch
from _torch import LOSSES, PACKAGES, versions
from work import Work

__all__ = ["LOSSES", "NOTE", "PACKAGES", "TITLE", "export", "setup", "versions"]
TITLE = "torch.compile, NCHW"
NOTE = "process start with a warm compile cache; a C++ compiler comes on top of the bytes installed"


def export(work: Work) -> None:
    """Compile once, from nothing: what a compilation that was killed leaves behind cannot be loaded."""
    shutil.rmtree(work.place("compile") / "inductor", ignore_errors=True)
    setup(work)()


def setup(work: Work) -> Callable[[], float]:
    """See `_torch.setup`. What is compiled is kept with the work, so that later processes find it."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work.place("compile") / "inductor")
    return _torch.setup(work, compiled=True)
