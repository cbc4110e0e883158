"""torch.compile of the forward pass and the loss (its backward pass with it), and PyTorch's fused SGD."""

from __future__ import annotations

import os
from collections.abc import Callable

import _torch
from _torch import LOSSES, PACKAGES, versions
from work import Work

__all__ = ["LOSSES", "NOTE", "PACKAGES", "TITLE", "setup", "versions"]
TITLE = "torch.compile, NCHW"
NOTE = "process start with a warm compile cache; a C++ compiler comes on top of the bytes installed"


def setup(work: Work) -> Callable[[], float]:
    """See `_torch.setup`. What is compiled is kept with the work, so that later processes find it."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work.place("compile") / "inductor")
    return _torch.setup(work, compiled=True)
