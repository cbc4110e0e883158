"""Pooling: backward of max and average pooling over windows; adaptive pooling as pooling or matrices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import windows

aten = torch.ops.aten


def max_pool_backward(
    axes: int,
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Route each gradient to the first maximum of its window (row-major), as PyTorch does.

    No index arithmetic. grad: [..., *out] and x: [..., *size] with `axes` (2 or 3) spatial axes.
    """
    pool = aten.max_pool2d_with_indices if axes == 2 else aten.max_pool3d_with_indices
    top = pool(x, kernel, stride, padding, dilation, ceil_mode)[0]
    kernel = windows.per_axis(kernel, axes)
    stride = windows.per_axis(stride, axes) if stride else kernel
    padding, dilation = windows.per_axis(padding, axes), windows.per_axis(dilation, axes)
    size, out = x.shape[-axes:], grad.shape[-axes:]
    # a finite fill: infinity minus infinity would be NaN, and no activation reaches this value
    fill = torch.finfo(torch.float32).min
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation, fill)
    parts = []
    for offset in windows.offsets(kernel):
        behind = torch.sign(
            top - windows.window(padded, offset, out, stride, dilation)
        )  # 0 at a maximum, else 1
        rest = grad * behind  # what this and the earlier elements of the window have not taken
        parts.append(grad - rest)
        grad = rest
    return windows.unwindow(parts, size, kernel, stride, padding, dilation)


def _counts(size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool) -> list[int]:
    """Elements that each window of an axis averages over: padding may count, what ceil_mode adds does not."""
    counts = []
    for i in range(out):
        start = i * stride - padding
        stop = min(start + kernel, size + padding)
        counts.append(stop - start if include_pad else min(stop, size) - max(start, 0))
    return counts


def avg_pool_backward(
    axes: int,
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Spread each gradient evenly over its window, axis by axis; `axes` (2 or 3) spatial axes."""
    kernel = windows.per_axis(kernel, axes)
    stride = windows.per_axis(stride, axes) if stride else kernel
    padding = windows.per_axis(padding, axes)
    size, out = x.shape[-axes:], grad.shape[-axes:]
    if divisor_override:
        share = grad / divisor_override
    else:
        counts = [
            _counts(*axis, count_include_pad) for axis in zip(size, out, kernel, stride, padding, strict=True)
        ]
        divisors = [float(math.prod(elements)) for elements in itertools.product(*counts)]
        if len(set(divisors)) == 1:
            share = grad / divisors[0]
        else:
            share = grad / torch.tensor(divisors, dtype=grad.dtype).reshape(out)
    for axis in reversed(range(axes)):
        dim, parts = share.dim() - axes + axis, [share] * kernel[axis]
        share = windows.unwindow_axis(parts, dim, size[axis], stride[axis], padding[axis], 1)
    return share


def _even_kernel(size: Sequence[int], out: Sequence[int]) -> list[int] | None:
    """The window of the average pooling that adaptive pooling is, where every axis divides."""
    if any(s % o for s, o in zip(size, out, strict=True)):
        return None
    return [s // o for s, o in zip(size, out, strict=True)]


def _adaptive_matrix(size: int, out: int, like: Tensor) -> Tensor:
    """Constant [size, out]; column i averages the span floor(i*size/out) .. ceil((i+1)*size/out)."""
    spans = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    rows = [[1 / (stop - start) if start <= j < stop else 0.0 for start, stop in spans] for j in range(size)]
    return torch.tensor(rows, dtype=like.dtype)


def _along_both(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[..., H', W']: x [..., H, W] times rows [H, H'] and columns [W, W'], each one product of matrices."""
    for matrix in (columns, rows):
        *outer, last = x.shape
        product = torch.mm(x.reshape(-1, last), matrix)
        x = product.reshape(*outer, matrix.shape[1]).transpose(-1, -2)
    return x


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Global pooling is a mean, an even division average pooling, any other size a matrix for each axis."""
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
        return avg_pool_backward(2, grad, x, kernel, kernel, [0, 0], False, True, None)
    rows, columns = (_adaptive_matrix(size[a], out[a], x).t() for a in range(2))
    return _along_both(grad, rows, columns)


TABLE: dict[Any, Callable[..., Any]] = {
    aten.max_pool2d_with_indices_backward.default: partial(max_pool_backward, 2),
    aten.max_pool3d_with_indices_backward.default: partial(max_pool_backward, 3),
    aten.avg_pool2d_backward.default: partial(avg_pool_backward, 2),
    aten.avg_pool3d_backward.default: partial(avg_pool_backward, 3),
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
}
