"""Pooling: LiteRT's own operators know SAME and VALID; other paddings become a pad."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from clue_mobile.lowering import windows
from clue_mobile.lowering.pool import _counts
from exporters.litert_call import F32, Call, Result, is_same, window_pads
from exporters.litert_conv import SAME, VALID
from exporters.litert_graph import UnsupportedError
from exporters.litert_layout import Value, channels_last


def _pool(
    c: Call, op: str, x: Value, padding: int, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> Value:
    return c.l.emit(
        op, [c.l.to(x, channels_last(4))], c.out.shape, channels_last(4), options="Pool2DOptions",
        padding=padding, filterHeight=kernel[0], filterWidth=kernel[1], strideH=stride[0], strideW=stride[1],
    )  # fmt: skip


def max_pool(c: Call) -> Result:
    """aten.max_pool2d, also with ceil_mode."""
    x = c[0]
    kernel = windows.per_axis(c[1], 2)
    stride = windows.per_axis(c[2], 2) if c[2] else kernel
    padding, dilation = windows.per_axis(c[3], 2), windows.per_axis(c[4], 2)
    if len(x.shape) != 4 or dilation != (1, 1):
        raise UnsupportedError("max_pool2d with dilation, or of a single image")
    places = (x.shape[2:], tuple(c.out.shape[2:]), kernel, stride, padding, dilation)
    if is_same(*places):
        return _pool(c, "MAX_POOL_2D", x, SAME, kernel, stride)
    pads, touched = window_pads(*places)
    x = c.pad(x, [(0, 0), (0, 0), *pads], torch.finfo(torch.float32).min)
    x = c.cut(x, {2 + i: (0, length, 1) for i, length in enumerate(touched)})
    return _pool(c, "MAX_POOL_2D", x, VALID, kernel, stride)


def avg_pool(c: Call) -> Result:
    """aten.avg_pool2d in all its modes: the average over padded windows, corrected where it counts others."""
    x = c[0]
    if len(x.shape) != 4:
        raise UnsupportedError("avg_pool2d of a single image")
    kernel = windows.per_axis(c[1], 2)
    stride = windows.per_axis(c[2], 2) if c[2] else kernel
    padding, include_pad, divisor = windows.per_axis(c[3], 2), bool(c[5]), c[6]
    out = tuple(c.out.shape[2:])
    pads, touched = window_pads(x.shape[2:], out, kernel, stride, padding, (1, 1))
    counts = [
        _counts(n, o, k, s, p, include_pad)
        for n, o, k, s, p in zip(x.shape[2:], out, kernel, stride, padding, strict=True)
    ]
    x = c.pad(x, [(0, 0), (0, 0), *pads])
    x = c.cut(x, {2 + i: (0, length, 1) for i, length in enumerate(touched)})
    mean = _pool(c, "AVERAGE_POOL_2D", x, VALID, kernel, stride)
    area = math.prod(kernel)
    factors = [area / (divisor or math.prod(pair)) for pair in itertools.product(*counts)]
    if all(factor == 1 for factor in factors):
        return mean
    if len(set(factors)) == 1:
        return c.binary("MUL", mean, c.number(factors[0], 4), mean.shape)
    table = c.l.constant(np.array(factors, np.float32).reshape(1, 1, *out), F32)
    return c.binary("MUL", mean, table, mean.shape)
