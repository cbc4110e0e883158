"""Pooling: LiteRT's own operators know SAME and VALID; other paddings become a pad."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from clue_mobile.lowering import windows
from clue_mobile.lowering.pool import _counts
from exporters.litert_call import F32, Call, Result, is_same, window_pads
from exporters.litert_conv import SAME, VALID
from exporters.litert_graph import UnsupportedError
from exporters.litert_layout import Value, channels_last

aten = torch.ops.aten


def _pool(
    c: Call,
    op: str,
    x: Value,
    padding: int,
    out: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
) -> Value:
    """Over two axes; over three by two operators, one for the last two axes and one for the first."""

    def plane(x: Value, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Value:
        return c.l.emit(
            op, [x], (*x.shape[:2], *out), channels_last(4), options="Pool2DOptions", padding=padding,
            filterHeight=kernel[0], filterWidth=kernel[1], strideH=stride[0], strideW=stride[1],
        )  # fmt: skip

    x = c.l.to(x, channels_last(len(x.shape)))
    if len(out) == 2:
        return plane(x, out, kernel, stride)
    n, channels, depth, *size = x.shape
    planes = c.l.stored_as(x, (n * depth, channels, *size), channels_last(4))
    planes = plane(planes, out[1:], kernel[1:], stride[1:])
    rows = c.l.stored_as(planes, (n, channels, depth, out[1] * out[2]), channels_last(4))
    rows = plane(rows, (out[0], out[1] * out[2]), (kernel[0], 1), (stride[0], 1))
    return c.l.stored_as(rows, (n, channels, *out), channels_last(5))


def _arguments(c: Call, axes: int) -> tuple[Value, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(input, kernel, stride, padding), the last three for each axis."""
    x, kernel = c[0], windows.per_axis(c[1], axes)
    if len(x.shape) != axes + 2:
        raise UnsupportedError("pooling of a single image")
    stride = windows.per_axis(c[2], axes) if c[2] else kernel
    return x, kernel, stride, windows.per_axis(c[3], axes)


def max_pool(axes: int, c: Call) -> Result:
    """aten.max_pool2d and max_pool3d, also with ceil_mode."""
    x, kernel, stride, padding = _arguments(c, axes)
    if max(windows.per_axis(c[4], axes)) > 1:
        raise UnsupportedError("max pooling with dilation")
    out = tuple(c.out.shape[2:])
    places = (x.shape[2:], out, kernel, stride, padding, (1,) * axes)
    if axes == 2 and is_same(*places):
        return _pool(c, "MAX_POOL_2D", x, SAME, out, kernel, stride)
    pads, touched = window_pads(*places)
    x = c.pad(x, [(0, 0), (0, 0), *pads], torch.finfo(torch.float32).min)
    x = c.cut(x, {2 + i: (0, length, 1) for i, length in enumerate(touched)})
    return _pool(c, "MAX_POOL_2D", x, VALID, out, kernel, stride)


def avg_pool(axes: int, c: Call) -> Result:
    """aten.avg_pool2d and avg_pool3d in all their modes: the average over padded windows, corrected where
    these count others."""
    x, kernel, stride, padding = _arguments(c, axes)
    include_pad, divisor = bool(c[5]), c[6]
    out = tuple(c.out.shape[2:])
    pads, touched = window_pads(x.shape[2:], out, kernel, stride, padding, (1,) * axes)
    counts = [
        _counts(n, o, k, s, p, include_pad)
        for n, o, k, s, p in zip(x.shape[2:], out, kernel, stride, padding, strict=True)
    ]
    x = c.pad(x, [(0, 0), (0, 0), *pads])
    x = c.cut(x, {2 + i: (0, length, 1) for i, length in enumerate(touched)})
    mean = _pool(c, "AVERAGE_POOL_2D", x, VALID, out, kernel, stride)
    area = math.prod(kernel)
    factors = [area / (divisor or math.prod(elements)) for elements in itertools.product(*counts)]
    if all(factor == 1 for factor in factors):
        return mean
    if len(set(factors)) == 1:
        return c.binary("MUL", mean, c.number(factors[0], len(x.shape)), mean.shape)
    table = c.l.constant(np.array(factors, np.float32).reshape(1, 1, *out), F32)
    return c.binary("MUL", mean, table, mean.shape)


TABLE: dict[Any, Callable[[Call], Result]] = {
    aten.max_pool2d.default: functools.partial(max_pool, 2),
    aten.max_pool3d.default: functools.partial(max_pool, 3),
    aten.avg_pool2d.default: functools.partial(avg_pool, 2),
    aten.avg_pool3d.default: functools.partial(avg_pool, 3),
}
