"""Sliding windows spelled with forward operators: pads, strided slices and reshapes of rank 5 at most.

Every program runs on inference runtimes that lack gather/scatter for windows, refuse negative pads, and stop at rank 5, so
convolution and pooling backward are built from the three helpers below. Spatial axes are the last `len(kernel)` axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def per_axis(value: Sequence[int], axes: int) -> tuple[int, ...]:
    """Spread a one-element operator argument (`stride=[2]`) over `axes` spatial axes."""
    return tuple(value) if len(value) == axes else tuple(value) * axes


def padded_size(out: int, kernel: int, stride: int, dilation: int) -> int:
    """Length of the padded axis that `out` windows touch."""
    return (out - 1) * stride + dilation * (kernel - 1) + 1


def pad_for_windows(
    x: Tensor,
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    fill: float = 0.0,
) -> Tensor:
    """Pad (or cut, where the last windows leave a rest unused) so that each axis has just the size the windows touch."""
    pads: list[int] = []
    for axis in range(len(kernel)):
        dim = x.dim() - len(kernel) + axis
        after = padded_size(out[axis], kernel[axis], stride[axis], dilation[axis]) - x.shape[dim] - padding[axis]
        if after < 0:  # negative pads are refused by ExecuTorch and IREE: slice
            x = x.narrow(dim, 0, x.shape[dim] + after)
        pads = [padding[axis], max(after, 0), *pads]
    return F.pad(x, pads, value=fill) if any(pads) else x


def offsets(kernel: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Positions inside the window, row-major, as PyTorch orders a kernel's elements."""
    return itertools.product(*(range(k) for k in kernel))


def window(
    padded: Tensor, offset: Sequence[int], out: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The element at `offset` of every window: `padded` of shape [..., *padded sizes] gives [..., *out]."""
    for axis, position in enumerate(offset):
        dim = padded.dim() - len(offset) + axis
        start = position * dilation[axis]
        stop = start + (out[axis] - 1) * stride[axis] + 1
        if start or stop != padded.shape[dim] or stride[axis] > 1:
            padded = torch.ops.aten.slice.Tensor(padded, dim, start, stop, stride[axis])
    return padded


def dilate(x: Tensor, dim: int, stride: int) -> Tensor:
    """Insert stride - 1 zeros between neighbours along `dim`; length n becomes (n - 1) * stride + 1."""
    n = x.shape[dim]
    if stride == 1 or n == 1:
        return x
    lead, tail = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    spread = F.pad(x.reshape(lead, n, 1, tail), (0, 0, 0, stride - 1))  # rank 4 whatever the rank of x
    spread = spread.reshape(*x.shape[:dim], n * stride, *x.shape[dim + 1 :])
    return spread.narrow(dim, 0, (n - 1) * stride + 1)


def unwindow(
    parts: Sequence[Tensor],
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The adjoint of `window` over all offsets: add each part [..., *out] back at its place; returns [..., *size]."""
    axes = len(kernel)
    out = parts[0].shape[-axes:]
    total = [padded_size(out[a], kernel[a], stride[a], dilation[a]) for a in range(axes)]
    result: Tensor | None = None
    for offset, part in zip(offsets(kernel), parts, strict=True):
        pads: list[int] = []
        for axis in range(axes):
            part = dilate(part, part.dim() - axes + axis, stride[axis])
            before = offset[axis] * dilation[axis]
            pads = [before, total[axis] - before - part.shape[part.dim() - axes + axis], *pads]
        placed = F.pad(part, pads) if any(pads) else part
        result = placed if result is None else result + placed
    assert result is not None
    for axis in range(axes):  # drop the padding in front, cut or fill the rest behind
        dim = result.dim() - axes + axis
        keep = min(size[axis], total[axis] - padding[axis])
        result = result.narrow(dim, padding[axis], keep)
        if keep < size[axis]:
            result = F.pad(result, [0, 0] * (result.dim() - 1 - dim) + [0, size[axis] - keep])
    return result
