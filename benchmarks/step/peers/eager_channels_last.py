"""Eager PyTorch with images and weights in channels_last layout."""

from __future__ import annotations

from collections.abc import Callable

import _torch
from _torch import LOSSES, PACKAGES, versions
from work import Work

__all__ = ["LOSSES", "PACKAGES", "TITLE", "setup", "versions"]
TITLE = "PyTorch eager, channels_last"


def setup(work: Work) -> Callable[[], float]:
    """See `_torch.setup`."""
    return _torch.setup(work, channels_last=True)
