"""Views, pads, products of matrices and pooling as nodes of the XNNPACK delegate; see executorch_ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from torch.fx import Node

from exporters.executorch_call import BOX, TRANSPOSED, Call, Table, Translation
from exporters.executorch_graph import UnsupportedError

aten = torch.ops.aten


def _reshape(c: Call) -> int:
    return c.b.reshape(c[0], c.out.shape)


def _permute(c: Call) -> int:
    return c.b.permute(c[0], [axis % len(c[1]) for axis in c[1]])


def slice_bounds(node: Node) -> tuple[int, int, int, int]:
    """(axis, start, length, step) of a slice."""
    given: Any = (*node.args, *(0, None, None, 1)[len(node.args) - 1 :])
    source, axis, start, _, step = given
    size = source.meta["val"].shape[axis]
    start = max(start + size, 0) if (start or 0) < 0 else min(start or 0, size)
    axis %= source.meta["val"].dim()
    return axis, start, node.meta["val"].shape[axis], step


def _slice(c: Call) -> int:
    if BOX in c.node.meta:
        return c.b.slice(c[0], *c.node.meta[BOX])
    axis, start, length, step = slice_bounds(c.node)
    shape = c.shape(0)
    starts, sizes = [0] * len(shape), list(shape)
    starts[axis], sizes[axis] = start, min(length * step, shape[axis] - start)
    x = c.b.slice(c[0], starts, sizes)
    if step == 1:
        return x
    # every step-th element: the first of each row of `step`
    after = [0] * len(shape)
    after[axis] = length * step - sizes[axis]
    x = c.b.pad(x, [0] * len(shape), after)
    before, behind = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    rows = c.b.reshape(x, (before, length, step * behind))
    return c.b.reshape(c.b.slice(rows, (0, 0, 0), (before, length, behind)), c.out.shape)


def _select(c: Call) -> int:
    shape = c.shape(0)
    axis = c[1] % len(shape)
    starts, sizes = [0] * len(shape), list(shape)
    starts[axis], sizes[axis] = c[2] % shape[axis], 1
    return c.b.reshape(c.b.slice(c[0], starts, sizes), c.out.shape)


def _cat(c: Call) -> int:
    parts = [self for self, node in zip(c[0], c.raw(0), strict=True) if node.meta["val"].numel()]
    return c.b.concatenate(parts, c[1] % len(c.out.shape))


def _pad(c: Call) -> int:
    rank, pads = len(c.shape(0)), c[1]
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    if min(*before, *after) < 0:
        raise UnsupportedError("a negative pad")
    return c.b.pad(c[0], before, after, float(c[2] or 0))


def _expand(c: Call) -> int:
    out = list(c.out.shape)
    x = c.b.reshape(c[0], [1] * (len(out) - len(c.shape(0))) + c.shape(0))
    for axis, size in enumerate(out):
        if c.b.shapes[x][axis] != size:
            x = c.b.repeat(x, axis, size)
    return x


def _full(value: float | None = None) -> Translation:
    """A tensor of one number: one element of it, padded with itself."""

    def translate(c: Call) -> int:
        number = c.named("fill_value") if value is None else value
        if isinstance(number, Node):
            raise UnsupportedError("full with a value that is a tensor")
        shape = list(c.out.shape)
        one = c.b.constant(np.full([1] * len(shape), number, np.float32))
        return c.b.pad(one, [0] * len(shape), [size - 1 for size in shape], float(number))

    return translate


# products


def _product(c: Call, first: int) -> int:
    return c.b.product(c[first], c[first + 1], transposed=TRANSPOSED in c.node.meta)


def _addmm(c: Call) -> int:
    if c.named("alpha") != 1 or c.named("beta") != 1:
        raise UnsupportedError("addmm with factors")
    return c.b.add(_product(c, 1), c[0])


# pooling


def _pool_arguments(c: Call, count: int) -> list[list[int]]:
    lists = [c[i] * 2 if len(c[i]) == 1 else c[i] for i in range(1, count)]
    lists[1] = lists[1] or lists[0]  # no stride: that of the kernel
    return lists


def _pooled(c: Call, kind: type, x: int, arguments: list[list[int]]) -> int:
    kernel, stride, padding, dilation = arguments
    if kernel == [1, 1] or any(s > k for s, k in zip(stride, kernel, strict=True)):
        raise UnsupportedError("pooling of single pixels, or with gaps between windows")
    channels_last = c.b.permute(x, (0, 2, 3, 1))
    pooled = c.b.pool(kind, channels_last, kernel, stride, padding, dilation, list(c.out.shape[2:]))
    return c.b.permute(pooled, (0, 3, 1, 2))


def _max_pool(c: Call) -> int:
    if len(c.shape(0)) != 4:
        raise UnsupportedError("max_pool2d of a single image")
    kernel, stride, padding, dilation = _pool_arguments(c, 5)
    return _pooled(c, schema.XNNMaxPooling2d, c[0], [kernel, stride, padding, dilation])


def _avg_pool(c: Call) -> int:
    if len(c.shape(0)) != 4 or c.named("ceil_mode") or c.named("divisor_override") is not None:
        raise UnsupportedError("avg_pool2d with ceil_mode or divisor_override, or of a single image")
    kernel, stride, padding = _pool_arguments(c, 4)
    x = c[0]
    if any(padding):
        if not c.named("count_include_pad"):
            raise UnsupportedError("avg_pool2d with padding that does not count")
        around = [0, 0, *padding]
        x = c.b.pad(x, around, around)
    return _pooled(c, schema.XNNAvgPooling2d, x, [kernel, stride, [0, 0], [1, 1]])


TABLE: Table = {
    aten.reshape.default: _reshape,
    aten.permute.default: _permute,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
    aten.expand.default: _expand,
    aten.full.default: _full(),
    aten.full_like.default: _full(),
    aten.new_full.default: _full(),
    aten.zeros.default: _full(0.0),
    aten.zeros_like.default: _full(0.0),
    aten.new_zeros.default: _full(0.0),
    aten.ones.default: _full(1.0),
    aten.ones_like.default: _full(1.0),
    aten.new_ones.default: _full(1.0),
    aten.mm.default: lambda c: _product(c, 0),
    aten.bmm.default: lambda c: _product(c, 0),
    aten.addmm.default: _addmm,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
}
