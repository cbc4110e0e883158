"""ATen operators of lowered graphs as nodes of the XNNPACK delegate: one entry of `TABLE` each.

Conditions are numbers here, 1 where they hold and else 0: the delegate has no booleans. An operator, or a use
of it, that raises UnsupportedError runs on ExecuTorch's portable kernels, which are slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from torch.fx import Node

from exporters.executorch_graph import Builder, UnsupportedError

aten = torch.ops.aten
_LARGE = 3e38  # times any normal number is at least 1


class Call:
    """One ATen node while it is translated: arguments by position, tensors as ids of values."""

    def __init__(self, builder: Builder, node: Node, ids: dict[Node, int]) -> None:
        self.b, self.node, self._ids = builder, node, ids
        schema_arguments = node.target._schema.arguments  # type: ignore[union-attr]
        given = {**{a.name: v for a, v in zip(schema_arguments, node.args, strict=False)}, **node.kwargs}
        self._named: dict[str, Any] = {
            a.name: given.get(a.name, a.default_value if a.has_default_value() else None)
            for a in schema_arguments
        }
        self._args: list[Any] = list(self._named.values())

    def raw(self, index: int) -> Any:
        """The argument as it stands in the graph."""
        return self._args[index]

    def __getitem__(self, index: int) -> Any:
        value = self._args[index]
        if isinstance(value, Node):
            return self._ids[value]
        if isinstance(value, (list, tuple)) and any(isinstance(v, Node) for v in value):
            return [self._ids[v] for v in value]
        return list(value) if isinstance(value, (list, tuple)) else value

    def operand(self, index: int) -> int:
        """A tensor argument, or a number as a constant."""
        value = self._args[index]
        return self._ids[value] if isinstance(value, Node) else self.b.number(float(value))

    def named(self, name: str) -> Any:
        """An argument by its name; None where the operator has none of that name."""
        return self._named.get(name)

    def shape(self, index: int) -> list[int]:
        """The shape of the tensor argument `index`."""
        return list(self._args[index].meta["val"].shape)

    @property
    def out(self) -> Any:
        """The (fake) result."""
        return self.node.meta["val"]


Translation = Callable[[Call], int]


# element by element


def _unary(kind: type) -> Translation:
    return lambda c: c.b.unary(kind, c[0])


def _binary(kind: type) -> Translation:
    def translate(c: Call) -> int:
        if c.named("rounding_mode") is not None:
            raise UnsupportedError("division that rounds")
        left, right, alpha = c.operand(0), c.operand(1), c.named("alpha")
        if alpha not in (None, 1):
            right = c.b.multiply(right, c.b.number(float(alpha)))
        return c.b.binary(kind, left, right)

    return translate


def _rsub(c: Call) -> int:
    if c.named("alpha") not in (None, 1):
        raise UnsupportedError("rsub with a factor")
    return c.b.subtract(c.operand(1), c[0])


def _clamp(c: Call) -> int:
    low, high = c.named("min"), c.named("max")
    if isinstance(low, Node) or isinstance(high, Node):
        raise UnsupportedError("clamp with limits that are tensors")
    return c.b.clamp(c[0], -math.inf if low is None else float(low), math.inf if high is None else float(high))


def _sign(c: Call) -> int:
    """One node. Wrong for subnormal numbers alone, which come out as a fraction of 1."""
    return c.b.multiply(c[0], c.b.number(_LARGE), (-1.0, 1.0))


def _positive(b: Builder, x: int) -> int:
    """1 where x > 0, else 0; for subnormal numbers too."""
    return b.unary(schema.XNNCeiling, b.clamp(x, 0.0, 1.0))


def _not(b: Builder, x: int) -> int:
    return b.subtract(b.number(1.0), x)


def _greater(c: Call) -> int:
    return _positive(c.b, c.b.subtract(c.operand(0), c.operand(1)))


def _less(c: Call) -> int:
    return _positive(c.b, c.b.subtract(c.operand(1), c.operand(0)))


def _equal(c: Call) -> int:
    difference = c.b.unary(schema.XNNAbs, c.b.subtract(c.operand(0), c.operand(1)))
    return _not(c.b, _positive(c.b, difference))


def _where(c: Call) -> int:
    """Both branches are worked out: a value that is not finite spoils the result even where it is not
    taken."""
    for index in (1, 2):
        value = c.raw(index)
        if not isinstance(value, Node) and not math.isfinite(float(value)):
            raise UnsupportedError("where with an infinite value")
    taken = c.b.multiply(c.operand(1), c[0])
    if not isinstance(c.raw(2), Node) and float(c.raw(2)) == 0:
        return taken
    return c.b.add(taken, c.b.multiply(c.operand(2), _not(c.b, c[0])))


def _to_copy(c: Call) -> int:
    if c.out.dtype != torch.float32:
        raise UnsupportedError(f"a copy as {c.out.dtype}")
    return int(c[0])


def _power(c: Call) -> int:
    exponent = float(c[1])
    kinds = {2.0: schema.XNNSquare, 0.5: schema.XNNSquareRoot, -0.5: schema.XNNReciprocalSquareRoot}
    if exponent == 3:
        return c.b.multiply(c.b.unary(schema.XNNSquare, c[0]), c[0])
    if exponent not in kinds:
        raise UnsupportedError(f"the power {exponent}")
    return c.b.unary(kinds[exponent], c[0])


def _reciprocal(c: Call) -> int:
    return c.b.binary(schema.XNNDiv, c.b.number(1.0), c[0])


def _gelu(c: Call) -> int:
    if c.named("approximate") != "none":
        raise UnsupportedError("gelu by tanh")
    return c.b.unary(schema.XNNGelu, c[0])


# reductions


def _axes(c: Call, index: int) -> list[int]:
    rank = len(c.shape(0))
    given = c[index] if len(c._args) > index else None
    given = [given] if isinstance(given, int) else given
    return sorted({axis % rank for axis in given or range(rank)}) if rank else []


def reduce_mean(b: Builder, x: int, axes: list[int]) -> int:
    """Means over `axes`, each kept with size 1. Neighbouring axes go together, from the first: that is the
    fastest to add up, and stages keep rounding small."""
    axes = [axis for axis in axes if b.shapes[x][axis] > 1]
    while axes:
        first = last = axes.pop(0)
        while axes and all(size == 1 for size in b.shapes[x][last + 1 : axes[0]]):
            last = axes.pop(0)
        shape = list(b.shapes[x])
        shape[first : last + 1] = [1] * (last + 1 - first)
        x = b.reshape(b.mean(x, first, last), shape)
    return x


def _mean(c: Call) -> int:
    return c.b.reshape(reduce_mean(c.b, c[0], _axes(c, 1)), c.out.shape)


def _sum(c: Call) -> int:
    axes = _axes(c, 1)
    mean = c.b.reshape(reduce_mean(c.b, c[0], axes), c.out.shape)
    count = math.prod(c.shape(0)[axis] for axis in axes)
    return mean if count == 1 else c.b.multiply(mean, c.b.number(float(count)))


def _largest(c: Call) -> int:
    x = c[0]
    for axis in _axes(c, 1):
        x = c.b.largest(x, axis)
    return c.b.reshape(x, c.out.shape)


def _softmax(c: Call) -> int:
    axis, last = c[1] % len(c.shape(0)), len(c.shape(0)) - 1
    order = list(range(last + 1))
    order[axis], order[last] = last, axis  # the delegate's runs over the last axis
    made = c.b.unary(schema.XNNSoftmax, c.b.permute(c[0], order))
    return c.b.permute(made, order)


def _log_softmax(c: Call) -> int:
    axis = c[1] % len(c.shape(0))
    shifted = c.b.subtract(c[0], c.b.largest(c[0], axis))
    mean = reduce_mean(c.b, c.b.unary(schema.XNNExp, shifted), [axis])
    total = c.b.multiply(mean, c.b.number(float(c.shape(0)[axis])))
    return c.b.subtract(shifted, c.b.unary(schema.XNNLog, total))


# shapes


def _reshape(c: Call) -> int:
    return c.b.reshape(c[0], c.out.shape)


def _permute(c: Call) -> int:
    return c.b.permute(c[0], [axis % len(c[1]) for axis in c[1]])


BOX = "starts and sizes"  # a mark in the meta of a slice that stands for a chain of them


def slice_bounds(node: Node) -> tuple[int, int, int, int]:
    """(axis, start, length, step) of a slice."""
    source, axis, start, _, step = (*node.args, *(0, None, None, 1)[len(node.args) - 1 :])
    shape = source.meta["val"].shape  # type: ignore[union-attr]
    axis = int(axis) % len(shape)  # type: ignore[call-overload]
    size = shape[axis]
    start = int(start or 0)  # type: ignore[call-overload]
    start = max(start + size, 0) if start < 0 else min(start, size)
    return axis, start, node.meta["val"].shape[axis], int(step)  # type: ignore[call-overload]


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


TRANSPOSED = "second operand lies transposed"  # a mark in the meta of a product


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
    if kernel == [1, 1]:
        raise UnsupportedError("pooling of single pixels")
    channels_last = c.b.permute(x, (0, 2, 3, 1))
    pooled = c.b.pool(kind, channels_last, kernel, stride, padding, dilation, list(c.out.shape[2:]))
    return c.b.permute(pooled, (0, 3, 1, 2))


def _max_pool(c: Call) -> int:
    if len(c.shape(0)) != 4 or c.named("ceil_mode"):
        raise UnsupportedError("max_pool2d with ceil_mode, or of a single image")
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


def _simple() -> dict[Any, Translation]:
    unary = {
        aten.abs: schema.XNNAbs,
        aten.ceil: schema.XNNCeiling,
        aten.cos: schema.XNNCos,
        aten.exp: schema.XNNExp,
        aten.floor: schema.XNNFloor,
        aten.log: schema.XNNLog,
        aten.neg: schema.XNNNegate,
        aten.rsqrt: schema.XNNReciprocalSquareRoot,
        aten.sigmoid: schema.XNNSigmoid,
        aten.sin: schema.XNNSin,
        aten.sqrt: schema.XNNSquareRoot,
        aten.square: schema.XNNSquare,
        aten.tanh: schema.XNNTanh,
    }
    binary = {
        aten.add.Tensor: schema.XNNAdd,
        aten.add.Scalar: schema.XNNAdd,
        aten.sub.Tensor: schema.XNNSubtract,
        aten.sub.Scalar: schema.XNNSubtract,
        aten.mul.Tensor: schema.XNNMultiply,
        aten.mul.Scalar: schema.XNNMultiply,
        aten.div.Tensor: schema.XNNDiv,
        aten.div.Scalar: schema.XNNDiv,
        aten.maximum.default: schema.XNNMaximum,
        aten.minimum.default: schema.XNNMinimum,
    }
    return {
        **{op.default: _unary(kind) for op, kind in unary.items()},
        **{op: _binary(kind) for op, kind in binary.items()},
    }


TABLE: dict[Any, Translation] = {
    **_simple(),
    aten.rsub.Scalar: _rsub,
    aten.rsub.Tensor: _rsub,
    aten.relu.default: lambda c: c.b.clamp(c[0], 0.0, math.inf),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.hardtanh.default: lambda c: c.b.clamp(c[0], float(c[1]), float(c[2])),
    aten.sign.default: _sign,
    aten.gt.Scalar: _greater,
    aten.gt.Tensor: _greater,
    aten.lt.Scalar: _less,
    aten.lt.Tensor: _less,
    aten.ge.Scalar: lambda c: _not(c.b, _less(c)),
    aten.ge.Tensor: lambda c: _not(c.b, _less(c)),
    aten.le.Scalar: lambda c: _not(c.b, _greater(c)),
    aten.le.Tensor: lambda c: _not(c.b, _greater(c)),
    aten.eq.Scalar: _equal,
    aten.eq.Tensor: _equal,
    aten.where.self: _where,
    aten.where.ScalarOther: _where,
    aten.logical_not.default: lambda c: _not(c.b, c[0]),
    aten._to_copy.default: _to_copy,
    aten.pow.Tensor_Scalar: _power,
    aten.reciprocal.default: _reciprocal,
    aten.gelu.default: _gelu,
    aten.leaky_relu.default: lambda c: c.b.unary(
        schema.XNNLeakyReLU, c[0], negative_slope=float(c[1])
    ),
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.amax.default: _largest,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
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
