"""Eager PyTorch in its own layout, NCHW: what all others are divided by."""

from __future__ import annotations

from collections.abc import Callable

import _torch
from _torch import LOSSES, PACKAGES, versions
from work import Work

__all__ = ["LOSSES", "PACKAGES", "TITLE", "setup", "versions"]
TITLE = "PyTorch eager, NCHW"


def setup(work: Work) -> Callable[[], float]:
    """See `_torch.setup`."""
    return _torch.setup(work)
