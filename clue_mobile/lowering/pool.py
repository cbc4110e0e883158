"""Pooling: backward of max and average pooling over windows, adaptive average pooling as pooling or constant matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    fill = torch.finfo(torch.float32).min
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation, fill)
    parts = []
    for offset in windows.offsets(kernel):
        behind = torch.sign(top - windows.window(padded, offset, out, stride, dilation))  # 0 at a maximum, else 1
        rest = grad * behind  # what an earlier element of the window has not taken
        parts.append(grad - rest)
        grad = rest
    return windows.unwindow(parts, x.shape[-2:], kernel, stride, padding, dilation)


def _counts(size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool) -> list[int]:
    """Elements that each window of one axis averages over (padding may count, the rest that ceil_mode adds does not)."""
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
    """Spread each gradient evenly over its window, one axis after the other."""
    kernel = windows.per_axis(kernel, 2)
    stride = windows.per_axis(stride, 2) if stride else kernel
    padding = windows.per_axis(padding, 2)
    if divisor_override:
        share = grad / divisor_override
    else:
        rows, columns = (
            _counts(x.shape[a - 2], grad.shape[a - 2], kernel[a], stride[a], padding[a], count_include_pad)
            for a in range(2)
        )
        even = len(set(rows)) == 1 and len(set(columns)) == 1
        table = [[float(r * c) for c in columns] for r in rows]
        share = grad / table[0][0] if even else grad / torch.tensor(table, dtype=grad.dtype)
    for axis in (1, 0):
        dim, parts = share.dim() - 2 + axis, [share] * kernel[axis]
        share = windows.unwindow_axis(parts, dim, x.shape[dim], stride[axis], padding[axis], 1)
    return share


def _even_kernel(size: Sequence[int], out: Sequence[int]) -> list[int] | None:
    """The window of the average pooling that adaptive pooling is where each axis divides."""
    if any(s % o for s, o in zip(size, out, strict=True)):
        return None
    return [s // o for s, o in zip(size, out, strict=True)]


def _adaptive_matrix(size: int, out: int, like: Tensor) -> Tensor:
    """Constant [size, out] whose column i averages the input span floor(i*size/out) .. ceil((i+1)*size/out)."""
    spans = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    rows = [
        [1 / (stop - start) if start <= j < stop else 0.0 for start, stop in spans] for j in range(size)
    ]
    return torch.tensor(rows, dtype=like.dtype)


def _along_both(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x [..., H, W] times rows [H, H'] and columns [W, W'], each as one product of two matrices; [..., H', W']."""
    x = torch.matmul(x, columns).transpose(-1, -2)
    return torch.matmul(x, rows).transpose(-1, -2)


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Global pooling is a mean, an even division average pooling, any other size one constant matrix for each axis."""
    size, out = x.shape[-2:], list(output_size)
    if out == [1, 1]:
        return x.mean([-2, -1], keepdim=True)
    kernel = _even_kernel(size, out)
    if kernel is not None:
        return x if kernel == [1, 1] else aten.avg_pool2d(x, kernel, kernel)
    return _along_both(x, _adaptive_matrix(size[0], out[0], x), _adaptive_matrix(size[1], out[1], x))


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The adjoint of the forward pass in each of its forms."""
    size, out = x.shape[-2:], grad.shape[-2:]
    if list(out) == [1, 1]:
        return (grad / (size[0] * size[1])).expand(x.shape)
    kernel = _even_kernel(size, out)
    if kernel is not None:
        return avg_pool2d_backward(grad, x, kernel, kernel, [0, 0], False, True, None)
    rows, columns = (_adaptive_matrix(size[a], out[a], x).t() for a in range(2))
    return _along_both(grad, rows, columns)


TABLE: dict[Any, Callable[..., Any]] = {
    aten.max_pool2d_with_indices_backward.default: max_pool2d_with_indices_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
}
