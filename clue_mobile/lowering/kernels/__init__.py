"""Convolutions and batch norms as the operators of the kernel library (kernels/), instead of stock ones.

`OVERRIDES` goes to `clue_mobile.lowering.lower`; `fuse` then joins what the kernels do in one pass. The
operators are opaque PyTorch operators of the namespace "clue" with a reference implementation each, so such a
graph still runs in eager PyTorch. Activations between them lie as [N, H, W, C].
"""

from __future__ import annotations

from clue_mobile.lowering.kernels.forms import OVERRIDES
from clue_mobile.lowering.kernels.fuse import fuse

__all__ = ["OVERRIDES", "fuse"]
