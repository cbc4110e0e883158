"""Eager PyTorch with SGD without momentum: the reference of peers whose optimizer has none."""

from __future__ import annotations

from collections.abc import Callable

import _torch
from _torch import LOSSES, PACKAGES, versions
from work import Work

__all__ = ["LOSSES", "MOMENTUM", "PACKAGES", "TITLE", "setup", "versions"]
TITLE = "PyTorch eager, NCHW, SGD without momentum"
MOMENTUM = False


def setup(work: Work) -> Callable[[], float]:
    """See `_torch.setup`."""
    return _torch.setup(work, momentum=0.0)
