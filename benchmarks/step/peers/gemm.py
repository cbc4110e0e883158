"""The machine's own peak: a product of two 1024 x 1024 matrices in float32 by PyTorch's BLAS."""

from __future__ import annotations

from collections.abc import Callable

from _torch import PACKAGES, versions
from work import LOSSES, Work

__all__ = ["FLOPS", "LOSSES", "PACKAGES", "TITLE", "setup", "versions"]
TITLE = "GEMM 1024 x 1024 x 1024"
SIZE = 1024
FLOPS = 2 * SIZE**3


def setup(work: Work) -> Callable[[], float]:
    """One product a step; the "loss" is an element of the result."""
    import torch

    torch.set_num_threads(work.threads)
    a, b = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    out = torch.empty(SIZE, SIZE)

    def step() -> float:
        torch.mm(a, b, out=out)
        return float(out[0, 0])

    return step
