"""Views and pads: pieces as slices, backward without scatter and without negative pads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clue_mobile.lowering import windows

aten = torch.ops.aten


def constant_pad_nd(x: Tensor, pad: Sequence[int], value: float = 0) -> Any:
    """A negative pad (autograd's backward of a pad) becomes a slice; positive pads stay as they are."""
    if all(p >= 0 for p in pad):
        return NotImplemented
    for i in range(len(pad) // 2):
        dim = x.dim() - 1 - i
        before, after = max(-pad[2 * i], 0), max(-pad[2 * i + 1], 0)
        if before or after:
            x = x.narrow(dim, before, x.shape[dim] - before - after)
    rest = [max(p, 0) for p in pad]
    return F.pad(x, rest, value=value) if any(rest) else x


def split(x: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of length `size`, as slices: no exporter then needs operators with several results for them."""
    return tuple(x.narrow(dim, at, min(size, x.shape[dim] - at)) for at in range(0, x.shape[dim], size))


def split_with_sizes(x: Tensor, sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the given lengths, as slices."""
    return tuple(x.narrow(dim, sum(sizes[:i]), size) for i, size in enumerate(sizes))


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Every index of an axis, as selections."""
    return tuple(x.select(dim, i) for i in range(x.shape[dim]))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """A concatenation along a new axis."""
    return torch.cat([tensor.unsqueeze(dim) for tensor in tensors], dim)


def slice_backward(
    grad: Tensor, input_sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Tensor:
    """Zeros of `input_sizes` with grad at start:end:step of `dim`."""
    dim, size = dim % len(input_sizes), input_sizes[dim]
    start = max(start + size, 0) if start < 0 else min(start, size)
    return windows.place(windows.dilate(grad, dim, step), dim, start, size)


def select_backward(grad: Tensor, input_sizes: Sequence[int], dim: int, index: int) -> Tensor:
    """Zeros of `input_sizes` with grad at `index` of `dim`."""
    dim, size = dim % len(input_sizes), input_sizes[dim]
    return windows.place(grad.unsqueeze(dim), dim, index % size, size)


TABLE: dict[Any, Callable[..., Any]] = {
    aten.constant_pad_nd.default: constant_pad_nd,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split_with_sizes,
    aten.unbind.int: unbind,
    aten.stack.default: stack,
    aten.slice_backward.default: slice_backward,
    aten.select_backward.default: select_backward,
}
