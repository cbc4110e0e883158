"""Views and pads: pieces as slices, backward without scatter and without negative pads."""

from __future__ import annotations

import math
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


def slice_scatter(
    x: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    """x with `source` written at start:end:step of `dim`; with a step of 1 two slices around it."""
    size = x.shape[dim]
    first, last, _ = slice(start, end).indices(size)
    if step != 1:
        return _written(x, source, dim, list(range(first, last, step)))
    parts = [x.narrow(dim, 0, first), source, x.narrow(dim, max(first, last), size - max(first, last))]
    kept = [part for part in parts if part.shape[dim]]
    return torch.cat(kept, dim) if len(kept) > 1 else kept[0]


def _written(x: Tensor, source: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """x with the elements of `source` at these places of `dim`, as a concatenation of both's slices."""
    parts, at = [], 0
    for number, place in enumerate(places):
        if place > at:
            parts.append(x.narrow(dim, at, place - at))
        parts.append(source.narrow(dim, number, 1))
        at = place + 1
    if at < x.shape[dim]:
        parts.append(x.narrow(dim, at, x.shape[dim] - at))
    return torch.cat(parts, dim)


def select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> Any:
    """x with `source` written at one index of `dim`."""
    return _written(x, source.unsqueeze(dim % x.dim()), dim, [index % x.shape[dim]])


def roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    """Axes turned by their shifts: two slices of each, the other way round."""
    if not dims:
        return roll(x.reshape(-1), shifts, [0]).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        if shift := shift % size:
            x = torch.cat([x.narrow(dim, size - shift, shift), x.narrow(dim, 0, size - shift)], dim)
    return x


def repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Axes repeated end to end, new ones in front."""
    x = x.reshape([1] * (len(repeats) - x.dim()) + list(x.shape))
    for dim, count in enumerate(repeats):
        if count != 1:
            lead, rest = math.prod(x.shape[:dim]), math.prod(x.shape[dim:])
            spread = x.reshape(lead, 1, rest).expand(lead, count, rest)
            x = spread.reshape(*x.shape[:dim], count * x.shape[dim], *x.shape[dim + 1 :])
    return x


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """[..., C r r, H, W] as [..., C, H r, W r] (Shi et al. 2016)."""
    *outer, channels, height, width = x.shape
    x = x.reshape(-1, factor, factor, height, width).permute(0, 3, 1, 4, 2)
    return x.reshape(*outer, channels // factor**2, height * factor, width * factor)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`."""
    *outer, channels, height, width = x.shape
    x = x.reshape(-1, height // factor, factor, width // factor, factor).permute(0, 2, 4, 1, 3)
    return x.reshape(*outer, channels * factor**2, height // factor, width // factor)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels dealt out to the groups in turn (Zhang et al. 2018)."""
    n, channels = x.shape[:2]
    return x.reshape(n, groups, channels // groups, -1).transpose(1, 2).reshape(x.shape)


def unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along one axis as a new last axis."""
    count = (x.shape[dim] - size) // step + 1
    stop = (count - 1) * step + 1
    taps = [aten.slice.Tensor(x, dim, k, k + stop, step).unsqueeze(-1) for k in range(size)]
    return torch.cat(taps, -1)


def unfold_backward(grad: Tensor, input_sizes: Sequence[int], dim: int, size: int, step: int) -> Tensor:
    """Each window's gradient added at its place."""
    parts = [grad.select(-1, k) for k in range(size)]
    dim %= len(input_sizes)
    return windows.unwindow_axis(parts, dim, input_sizes[dim], step, 0, 1)


def _columns(
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> list[int]:
    """How many windows each axis has."""
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    ]


def im2col(
    x: Tensor,
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Any:
    """[N, C kh kw, windows] of x [N, C, H, W]."""
    if x.dim() != 4:
        return NotImplemented
    out = _columns(x.shape[2:], kernel, dilation, padding, stride)
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation)
    taps = [windows.window(padded, at, out, stride, dilation) for at in windows.offsets(kernel)]
    flat = [tap.reshape(*x.shape[:2], 1, math.prod(out)) for tap in taps]
    return torch.cat(flat, 2).reshape(x.shape[0], -1, math.prod(out))


def col2im(
    x: Tensor,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Any:
    """Windows [N, C kh kw, windows] added up to [N, C, *size]."""
    if x.dim() != 3:
        return NotImplemented
    out = _columns(size, kernel, dilation, padding, stride)
    x = x.reshape(x.shape[0], -1, math.prod(kernel), math.prod(out))
    parts = [x.select(2, k).reshape(*x.shape[:2], *out) for k in range(math.prod(kernel))]
    return windows.unwindow(parts, size, kernel, stride, padding, dilation)


def _later(*args: Any) -> Any:
    """Left as it is for the pass `gather`, and not to PyTorch's own decomposition."""
    return NotImplemented


TABLE: dict[Any, Callable[..., Any]] = {
    aten.constant_pad_nd.default: constant_pad_nd,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split_with_sizes,
    aten.unbind.int: unbind,
    aten.stack.default: stack,
    aten.slice_backward.default: slice_backward,
    aten.select_backward.default: select_backward,
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: select_scatter,
    aten.embedding_dense_backward.default: _later,
    aten.zero.default: torch.zeros_like,
    aten.fill.Scalar: torch.full_like,
    aten.roll.default: roll,
    aten.repeat.default: repeat,
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.channel_shuffle.default: channel_shuffle,
    aten.unfold.default: unfold,
    aten.unfold_backward.default: unfold_backward,
    aten.im2col.default: im2col,
    aten.col2im.default: col2im,
}
