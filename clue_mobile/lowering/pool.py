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
from clue_mobile.lowering.axes import Matrix, adjoint, along, selection

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
    """The window of the pooling that adaptive pooling is, where every axis divides."""
    if any(s % o for s, o in zip(size, out, strict=True)):
        return None
    return [s // o for s, o in zip(size, out, strict=True)]


def _spans(size: int, out: int) -> list[tuple[int, int]]:
    """What adaptive pooling takes together: floor(i*size/out) .. ceil((i+1)*size/out)."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def _averages(size: Sequence[int], out: Sequence[int]) -> list[Matrix | None]:
    """The matrix of each axis of uneven adaptive average pooling; None where an axis stays as it is."""
    return [
        [[1 / (b - a) if a <= j < b else 0.0 for j in range(s)] for a, b in _spans(s, o)] if s != o else None
        for s, o in zip(size, out, strict=True)
    ]


def adaptive_avg_pool(n: int, x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Global pooling is a mean, an even division average pooling, any other size a matrix for each axis."""
    size, out = x.shape[-n:], list(output_size)
    if out == [1] * n:
        return x.mean(list(range(-n, 0)), keepdim=True)
    kernel = _even_kernel(size, out)
    if kernel is not None:
        pool = aten.avg_pool2d if n == 2 else aten.avg_pool3d
        return x if kernel == [1] * n else pool(x, kernel, kernel)
    return along(x, _averages(size, out))


def adaptive_avg_pool_backward(n: int, grad: Tensor, x: Tensor) -> Tensor:
    """The adjoint of the forward pass in each of its forms."""
    size, out = x.shape[-n:], grad.shape[-n:]
    if list(out) == [1] * n:
        return (grad / math.prod(size)).expand(x.shape)
    kernel = _even_kernel(size, out)
    if kernel is not None:
        return avg_pool_backward(n, grad, x, kernel, kernel, [0] * n, False, True, None)
    return adjoint(grad, _averages(size, out))


def _even_windows(size: Sequence[int], out: Sequence[int]) -> tuple[list[int], list[Matrix | None]]:
    """Uneven spans as windows of one size: (kernel, matrix of each axis that repeats a span's last element).

    The repeated elements change no maximum, and the first of equal ones takes the gradient.
    """
    kernel, matrices = [], []
    for s, o in zip(size, out, strict=True):
        spans = _spans(s, o)
        longest = max(b - a for a, b in spans)
        taken = [min(a + j, b - 1) for a, b in spans for j in range(longest)]
        kernel.append(longest)
        matrices.append(None if taken == list(range(s)) else selection(taken, s))
    return kernel, matrices


def adaptive_max_pool(n: int, x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(maxima, indices, which mean nothing and only their own backward may be given) of each span."""
    kernel, matrices = _even_windows(x.shape[-n:], output_size)
    pool = aten.max_pool2d_with_indices if n == 2 else aten.max_pool3d_with_indices
    values, indices = pool(along(x, matrices), kernel, kernel)
    return values, indices


def adaptive_max_pool_backward(n: int, grad: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """The first maximum of each span takes the gradient."""
    kernel, matrices = _even_windows(x.shape[-n:], grad.shape[-n:])
    spread = along(x, matrices)
    return adjoint(
        max_pool_backward(n, grad, spread, kernel, kernel, [0] * n, [1] * n, False, indices), matrices
    )


TABLE: dict[Any, Callable[..., Any]] = {
    aten.max_pool2d_with_indices_backward.default: partial(max_pool_backward, 2),
    aten.max_pool3d_with_indices_backward.default: partial(max_pool_backward, 3),
    aten.avg_pool2d_backward.default: partial(avg_pool_backward, 2),
    aten.avg_pool3d_backward.default: partial(avg_pool_backward, 3),
    aten._adaptive_avg_pool2d.default: partial(adaptive_avg_pool, 2),
    aten._adaptive_avg_pool2d_backward.default: partial(adaptive_avg_pool_backward, 2),
    aten._adaptive_avg_pool3d.default: partial(adaptive_avg_pool, 3),
    aten._adaptive_avg_pool3d_backward.default: partial(adaptive_avg_pool_backward, 3),
    aten.adaptive_max_pool2d.default: partial(adaptive_max_pool, 2),
    aten.adaptive_max_pool2d_backward.default: partial(adaptive_max_pool_backward, 2),
    aten.adaptive_max_pool3d.default: partial(adaptive_max_pool, 3),
    aten.adaptive_max_pool3d_backward.default: partial(adaptive_max_pool_backward, 3),
}
