"""Sliding windows spelled with forward operators: pads, strided slices and reshapes of rank 5 at most.

Every program runs on inference runtimes that lack gather/scatter for windows, refuse negative pads, and stop
at rank 5, so convolution and pooling backward are built from the helpers below. Spatial axes are the last
`len(kernel)` axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def per_axis(value: Sequence[int], axes: int) -> tuple[int, ...]:
    """Spread a one-element operator argument (`stride=[2]`) over `axes` spatial axes."""
    return tuple(value) if len(value) == axes else tuple(value) * axes


def padded_size(out: int, kernel: int, stride: int, dilation: int) -> int:
    """Length of the padded axis that `out` windows touch."""
    return (out - 1) * stride + dilation * (kernel - 1) + 1


def place(x: Tensor, dim: int, before: int, size: int) -> Tensor:
    """Move x to start at `before` of an axis of length `size`: zeros fill it, what lies outside is cut."""
    start = max(-before, 0)
    stop = min(x.shape[dim], size - before)
    if stop <= start:
        return x.new_zeros([*x.shape[:dim], size, *x.shape[dim + 1 :]])
    if start or stop < x.shape[dim]:  # negative pads are refused by ExecuTorch and IREE: slice
        x = x.narrow(dim, start, stop - start)
    before = max(before, 0)
    pads = [0, 0] * (x.dim() - 1 - dim) + [before, size - before - x.shape[dim]]
    return F.pad(x, pads) if any(pads) else x


def pad_for_windows(
    x: Tensor,
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    fill: float = 0.0,
) -> Tensor:
    """Pad each axis to just the size that the windows touch, or cut it where they leave a rest unused."""
    pads: list[int] = []
    for axis in range(len(kernel)):
        dim = x.dim() - len(kernel) + axis
        touched = padded_size(out[axis], kernel[axis], stride[axis], dilation[axis])
        after = touched - x.shape[dim] - padding[axis]
        if after < 0:
            x = x.narrow(dim, 0, x.shape[dim] + after)
        pads = [padding[axis], max(after, 0), *pads]
    return F.pad(x, pads, value=fill) if any(pads) else x


def offsets(kernel: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Positions inside the window, row-major, as PyTorch orders a kernel's elements."""
    return itertools.product(*(range(k) for k in kernel))


def window(
    padded: Tensor, offset: Sequence[int], out: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The element at `offset` of every window: `padded` of shape [..., *padded sizes] gives [..., *out].

    The last axis is cut first: these slices are shared by all windows of a column, and the rest are copies of
    whole rows.
    """
    for axis in reversed(range(len(offset))):
        dim = padded.dim() - len(offset) + axis
        start = offset[axis] * dilation[axis]
        stop = start + (out[axis] - 1) * stride[axis] + 1
        if start or stop != padded.shape[dim] or stride[axis] > 1:
            padded = torch.ops.aten.slice.Tensor(padded, dim, start, stop, stride[axis])
    return padded


def dilate(x: Tensor, dim: int, stride: int) -> Tensor:
    """Insert stride - 1 zeros behind each element of `dim`; length n becomes n * stride."""
    n = x.shape[dim]
    if stride == 1:
        return x
    lead, tail = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    spread = F.pad(x.reshape(lead, n, 1, tail), (0, 0, 0, stride - 1))  # rank 4 whatever the rank of x
    return spread.reshape(*x.shape[:dim], n * stride, *x.shape[dim + 1 :])


def interleave(parts: Mapping[int, Tensor], dim: int, stride: int) -> Tensor:
    """parts[r]'s elements at r, r + stride, r + 2 stride ... of `dim`; zeros for a residue without a part."""
    first = next(iter(parts.values()))
    if stride == 1:
        return first
    shape = first.shape
    lead, n, tail = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
    columns, zeros = [], None
    last = max(parts)
    for residue in range(last + 1):
        if residue in parts:
            columns.append(parts[residue].reshape(lead, n, 1, tail))
        else:
            zeros = first.new_zeros(lead, n, 1, tail) if zeros is None else zeros
            columns.append(zeros)
    spread = torch.cat(columns, 2) if len(columns) > 1 else columns[0]
    if last + 1 < stride:
        spread = F.pad(spread, (0, 0, 0, stride - 1 - last))
    return spread.reshape(*shape[:dim], n * stride, *shape[dim + 1 :])


def unwindow_axis(
    parts: Sequence[Tensor], dim: int, size: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """The adjoint of cutting the windows of one axis; parts[k] holds element k of each window along `dim`.

    An element at k * dilation = q * stride + r of window i lands at (i + q) * stride + r: so the parts of one
    residue r are added up, shifted by q, and the sums are interleaved; no zeros go between elements.
    """
    landing = [divmod(k * dilation, stride) for k in range(len(parts))]
    length = parts[0].shape[dim] + max(shift for shift, _ in landing)
    sums: dict[int, Tensor] = {}
    for (shift, residue), part in zip(landing, parts, strict=True):
        placed = place(part, dim, shift, length)
        sums[residue] = sums[residue] + placed if residue in sums else placed
    return place(interleave(sums, dim, stride), dim, -padding, size)


def unwindow(
    parts: Sequence[Tensor],
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The adjoint of `window` over all offsets: each part [..., *out] added at its place; [..., *size].

    parts: in the order of `offsets(kernel)`. One axis after the other, from the last.
    """
    rest = list(parts)
    for axis in reversed(range(len(kernel))):
        dim = rest[0].dim() - len(kernel) + axis
        groups = [rest[i : i + kernel[axis]] for i in range(0, len(rest), kernel[axis])]
        rest = [
            unwindow_axis(group, dim, size[axis], stride[axis], padding[axis], dilation[axis])
            for group in groups
        ]
    return rest[0]
