"""Pooling: backward of max and average pooling over windows, adaptive average pooling as constant matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clue_mobile.lowering import windows

aten = torch.ops.aten


def max_pool2d_with_indices_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Route each gradient to the first maximum of its window (row-major), as PyTorch does; no index arithmetic."""
    kernel = windows.per_axis(kernel, 2)
    stride = windows.per_axis(stride, 2) if stride else kernel
    padding, dilation = windows.per_axis(padding, 2), windows.per_axis(dilation, 2)
    out = grad.shape[-2:]
    top = aten.max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)[0]
    # a finite fill: infinity minus infinity would be NaN, and no activation reaches this value
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation, fill=torch.finfo(torch.float32).min)
    free = torch.ones_like(top)  # 1 until an earlier element of the window was the maximum
    parts = []
    for offset in windows.offsets(kernel):
        behind = torch.sign(top - windows.window(padded, offset, out, stride, dilation))  # 0 at the maximum, else 1
        hit = free * (1 - behind)
        free = free - hit
        parts.append(grad * hit)
    return windows.unwindow(parts, x.shape[-2:], kernel, stride, padding, dilation)


def _counts(size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool) -> list[int]:
    """Elements that each window of one axis averages over, by PyTorch's rule (padding may count, the ceil-mode rest not)."""
    counts = []
    for i in range(out):
        start = i * stride - padding
        stop = min(start + kernel, size + padding)
        counts.append(stop - start if include_pad else min(stop, size) - max(start, 0))
    return counts


def avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Spread each gradient evenly over its window."""
    kernel = windows.per_axis(kernel, 2)
    stride = windows.per_axis(stride, 2) if stride else kernel
    padding = windows.per_axis(padding, 2)
    if divisor_override:
        share = grad / divisor_override
    else:
        rows, columns = (
            _counts(x.shape[-2 + a], grad.shape[-2 + a], kernel[a], stride[a], padding[a], count_include_pad) for a in range(2)
        )
        even = len(set(rows)) == 1 and len(set(columns)) == 1
        table = [[float(r * c) for c in columns] for r in rows]
        share = grad / table[0][0] if even else grad / torch.tensor(table, dtype=grad.dtype)
    parts = [share] * (kernel[0] * kernel[1])
    return windows.unwindow(parts, x.shape[-2:], kernel, stride, padding, (1, 1))


def _adaptive_matrix(size: int, out: int, like: Tensor) -> Tensor:
    """Constant [out, size] whose row i averages the input span floor(i*size/out) .. ceil((i+1)*size/out)."""
    rows = []
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        rows.append([1 / (stop - start) if start <= j < stop else 0.0 for j in range(size)])
    return torch.tensor(rows, dtype=like.dtype)


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Global pooling is a mean; any other size is one constant matrix for each axis."""
    if list(output_size) == [1, 1]:
        return x.mean([-2, -1], keepdim=True)
    if list(output_size) == list(x.shape[-2:]):
        return x
    rows = _adaptive_matrix(x.shape[-2], output_size[0], x)
    columns = _adaptive_matrix(x.shape[-1], output_size[1], x)
    return torch.matmul(torch.matmul(rows, x), columns.t())


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The transposed matrices of the forward pass."""
    if list(grad.shape[-2:]) == [1, 1]:
        return (grad / (x.shape[-2] * x.shape[-1])).expand(x.shape)
    if grad.shape == x.shape:
        return grad
    rows = _adaptive_matrix(x.shape[-2], grad.shape[-2], x)
    columns = _adaptive_matrix(x.shape[-1], grad.shape[-1], x)
    return torch.matmul(torch.matmul(rows.t(), grad), columns)


TABLE = {
    aten.max_pool2d_with_indices_backward.default: max_pool2d_with_indices_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
}
