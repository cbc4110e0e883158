"""ATen operators of lowered graphs as operators of Core ML's ML programs: one entry of `TABLE` each.

coremltools' own PyTorch front end knows more operators, but folds and renames what it reads, wants constant
weights for some, and takes minutes where this takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from exporters import coreml_layers as layers
from exporters.coreml_graph import MOST_AXES, Call, UnsupportedError, Var, size_of

aten = torch.ops.aten


def _unary(op: str) -> Callable[[Call], Var]:
    return lambda c: c.b.add(op, x=c.var(0))


def _aligned(c: Call, indices: Sequence[int], kinds: Sequence[str]) -> list[Var]:
    """Arguments that broadcast to the result. Where that has too many axes, neighbours are joined that either
    all arguments have in full or the same arguments lack."""
    values = [c.var(index, kind) for index, kind in zip(indices, kinds, strict=True)]
    out = list(c.out.shape)
    if len(out) <= MOST_AXES:
        return values
    tensors = [i for i in indices if isinstance(c.raw(i), Node)]
    shapes = {i: [1] * (len(out) - len(c.shape(i))) + c.shape(i) for i in tensors}
    groups: list[list[int]] = []
    lacking: Any = None
    for axis, size in enumerate(out):
        lacks = [shape[axis] != size for shape in shapes.values()]
        if groups and (size == 1 or lacks == lacking):
            groups[-1].append(axis)
        else:
            groups.append([axis])
            lacking = lacks
    if len(groups) > MOST_AXES:
        raise UnsupportedError(f"{c.node.target} of {len(out)} axes")
    merged = {i: [math.prod(shape[a] for a in group) for group in groups] for i, shape in shapes.items()}
    return [
        c.b.reshape(value, merged[i]) if i in merged else value
        for i, value in zip(indices, values, strict=True)
    ]


def _binary(op: str) -> Callable[[Call], Var]:
    def translate(c: Call) -> Var:
        kind = c.compared() if c.kind == "bool" else c.kind
        if kind == "bool":
            raise UnsupportedError(f"{op} of booleans")
        x, y = _aligned(c, (0, 1), (kind, kind))
        return c.b.add(op, x=x, y=_times_alpha(c, y))

    return translate


def _times_alpha(c: Call, value: Var) -> Var:
    """add, sub and rsub carry a factor of their second term."""
    alpha = c.named("alpha")
    return value if alpha in (None, 1) else c.b.add("mul", x=value, y=c.b.number(alpha, c.kind))


def _logical(op: str) -> Callable[[Call], Var]:
    def translate(c: Call) -> Var:
        x, y = _aligned(c, (0, 1), ("bool", "bool"))
        return c.b.add(op, x=x, y=y)

    return translate


def _reduce(op: str) -> Callable[[Call], Var]:
    def translate(c: Call) -> Var:
        value, shape = c.var(0), c.shape(0)  # the sum of booleans is their count
        if not shape:
            return value
        given = c.named("dim")
        given = [given] if isinstance(given, int) else given
        axes = sorted(axis % len(shape) for axis in given or range(len(shape)))
        groups: list[list[int]] = []
        for axis in range(len(shape)):
            if len(shape) > MOST_AXES and groups and (axis in axes) == (groups[-1][0] in axes):
                groups[-1].append(axis)
            else:
                groups.append([axis])
        value = c.b.reshape(value, [math.prod(shape[a] for a in group) for group in groups])
        reduced = [i for i, group in enumerate(groups) if group[0] in axes]
        keep = bool(c.named("keepdim")) or len(reduced) == len(groups)
        return c.b.reshape(c.b.add(op, x=value, axes=reduced, keep_dims=keep), c.out.shape)

    return translate


def _around(shape: Sequence[int], dim: int) -> tuple[list[int], int]:
    """The shape and the axis, with the axes around it joined where there are too many."""
    if len(shape) <= MOST_AXES:
        return list(shape), dim
    return [math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])], 1


def _cut(c: Call, dim: int, start: int, stop: int, step: int = 1) -> Var:
    shape, axis = _around(c.shape(0), dim)
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    begin[axis], end[axis], stride[axis] = start, stop, step
    return c.b.add("slice_by_index", x=c.b.reshape(c.var(0), shape), begin=begin, end=end, stride=stride)


def _slice(c: Call) -> Var:
    dim = c[1] % len(c.shape(0))
    size = c.shape(0)[dim]
    ends = c[2] or 0, size if c[3] is None else c[3]
    start, stop = (min(max(end + size if end < 0 else end, 0), size) for end in ends)
    return _cut(c, dim, start, stop, c[4])


def _select(c: Call) -> Var:
    dim = c[1] % len(c.shape(0))
    start = c[2] % c.shape(0)[dim]
    return c.b.reshape(_cut(c, dim, start, start + 1), c.out.shape)


def _permute(c: Call) -> Var:
    rank = len(c.shape(0))
    return c.b.transpose(c.var(0), c.shape(0), [axis % rank for axis in c[1]])


def _transpose(c: Call) -> Var:
    order = list(range(len(c.shape(0))))
    if len(order) < 2:
        return c.var(0)
    a, b = (0, 1) if c.named("dim0") is None else (c[1], c[2])
    order[a], order[b] = order[b], order[a]
    return c.b.transpose(c.var(0), c.shape(0), order)


def _expand(c: Call) -> Var:
    c.few_axes(0)
    size, shape = size_of(c.out.shape), size_of(c.shape(0))
    shape = [1] * (len(size) - len(shape)) + shape
    value = c.b.reshape(c.var(0), shape)
    reps = [n // m for n, m in zip(size, shape, strict=True)]
    return value if math.prod(reps) == 1 else c.b.add("tile", x=value, reps=reps)


def _cat(c: Call) -> Var:
    shapes = [list(node.meta["val"].shape) for node in c.raw(0)]
    dim = (c[1] or 0) % len(shapes[-1])
    kept = [(v, s) for v, s in zip(c.vars(0), shapes, strict=True) if math.prod(s)]
    values = [c.b.reshape(value, _around(shape, dim)[0]) for value, shape in kept]
    if len(values) == 1:
        return values[0]
    return c.b.add("concat", values=tuple(values), axis=_around(shapes[-1], dim)[1], interleave=False)


def _slice_scatter(c: Call) -> Var:
    """A tensor with a piece replaced: what stands before, the piece, what stands behind."""
    dim = (c[2] or 0) % len(c.shape(0))
    size, step = c.shape(0)[dim], c[5]
    if step != 1:
        raise UnsupportedError("an assignment to every other element")
    start = min(max((c[3] or 0) + (size if (c[3] or 0) < 0 else 0), 0), size)
    stop = start + c.shape(1)[dim]
    shape, axis = _around(c.shape(1), dim)
    parts = [c.b.reshape(c.var(1), shape)]
    if start:
        parts.insert(0, _cut(c, dim, 0, start))
    if stop < size:
        parts.append(_cut(c, dim, stop, size))
    return c.b.add("concat", values=tuple(parts), axis=axis, interleave=False)


def _repeat(c: Call) -> Var:
    c.few_axes(0)
    shape = [1] * (len(c[1]) - len(c.shape(0))) + c.shape(0)
    return c.b.add("tile", x=c.b.reshape(c.var(0), shape), reps=c[1])


def _pad(c: Call) -> Var:
    c.few_axes(0)
    if any(size < 0 for size in c[1]):
        raise UnsupportedError("a pad of less than nothing")
    before = list(zip(c[1][::2], c[1][1::2], strict=True))[::-1]
    pads = [0, 0] * (len(c.shape(0)) - len(before)) + [n for pair in before for n in pair]
    value = c.b.number(c[2] or 0.0, c.kind)
    return c.b.add("pad", x=c.var(0), pad=pads, mode="constant", constant_val=value)


def _flip(c: Call) -> Var:
    c.few_axes(0)
    return c.b.add("reverse", x=c.var(0), axes=c[1])


def _clamp(low: int | None, high: int | None) -> Callable[[Call], Var]:
    def translate(c: Call) -> Var:
        value = c.var(0)
        for op, index in (("maximum", low), ("minimum", high)):
            if index is not None and c[index] is not None:
                value = c.b.add(op, x=value, y=c.var(index))
        return value

    return translate


def _fill(index: int | None, value: float = 0.0) -> Callable[[Call], Var]:
    def translate(c: Call) -> Var:
        c.few_axes()
        return c.b.filled(value if index is None else c[index], c.out.shape, c.kind)

    return translate


def _power(c: Call) -> Var:
    if c[1] == 2:
        base = c.var(0)
        return c.b.add("mul", x=base, y=base)
    return c.b.add("pow", x=c.var(0), y=c.var(1))


def _rsub(c: Call) -> Var:
    return c.b.add("sub", x=c.var(1), y=_times_alpha(c, c.var(0)))


def _where(c: Call) -> Var:
    # the operator's result has the shape of its two values, whatever that of the condition
    cond, a, b = _aligned(c, (0, 1, 2), ("bool", c.kind, c.kind))
    if len(c.out.shape) <= MOST_AXES and size_of(c.out.shape) not in (list(a.shape), list(b.shape)):
        a = c.b.add("add", x=a, y=c.b.filled(0, c.out.shape, c.kind))
    return c.b.add("select", cond=cond, a=a, b=b)


def _elu(c: Call) -> Var:
    """scale * (max(x, 0) + alpha * (exp(min(x, 0) * input_scale) - 1))"""
    x, add, number = c.var(0), c.b.add, lambda value: c.b.number(value, c.kind)
    below = add("mul", x=add("minimum", x=x, y=number(0.0)), y=number(c[3]))
    curve = add("mul", x=add("sub", x=add("exp", x=below), y=number(1.0)), y=number(c[1]))
    return add("mul", x=add("add", x=add("relu", x=x), y=curve), y=number(c[2]))


def _embedding(c: Call) -> Var:
    return c.b.add("gather", x=c.var(0), indices=c.same(1), axis=0)


def _index_select(c: Call) -> Var:
    c.few_axes(0)
    return c.b.add("gather", x=c.var(0), indices=c.same(2), axis=c[1] % len(c.shape(0)))


def _index(c: Call) -> Var:
    """One tensor of indices, which counts along one axis."""
    c.few_axes(0)
    places = [axis for axis, index in enumerate(c[1]) if index is not None]
    if len(places) != 1 or c[1][places[0]].meta["val"].dtype == torch.bool:
        raise UnsupportedError("an index by several tensors or by a mask")
    return c.b.add("gather", x=c.var(0), indices=c.of(c[1][places[0]], "int32"), axis=places[0])


def _index_put(c: Call) -> Var:
    """The backward pass of a look-up: rows added at places that may repeat, as a product with a matrix of 0
    and 1, since it is not said what Core ML's scatter does with a place that comes twice."""
    places, size = c[1], c.shape(0)
    if len(places) != 1 or not c[3] or places[0].meta["val"].dtype == torch.bool:
        raise UnsupportedError("an assignment by index that does not add rows")
    count, row = places[0].meta["val"].numel(), math.prod(size[1:])
    if c.shape(2) != [*places[0].meta["val"].shape, *size[1:]]:
        raise UnsupportedError("an assignment by index of values that broadcast")
    rows = c.b.constant(np.arange(size[0], dtype=np.int32).reshape(-1, 1))
    hits = c.b.add("equal", x=rows, y=c.b.reshape(c.of(places[0], "int32"), [1, count]))
    values = c.b.reshape(c.var(2), [count, row])
    total = c.b.add("matmul", x=c.b.cast(hits, c.kind), y=values, transpose_x=False, transpose_y=False)
    return c.b.add("add", x=c.var(0), y=c.b.reshape(total, size))


TABLE: dict[Any, Callable[[Call], Any]] = {
    **dict.fromkeys(
        (
            aten.reshape.default,
            aten.view.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        lambda c: c.b.reshape(c.var(0), c.out.shape),
    ),
    aten.permute.default: _permute,
    **dict.fromkeys((aten.transpose.int, aten.t.default), _transpose),
    aten.slice.Tensor: _slice,
    aten.slice_scatter.default: _slice_scatter,
    aten.select.int: _select,
    aten.expand.default: _expand,
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
    aten.flip.default: _flip,
    aten.convolution.default: layers.convolution,
    **dict.fromkeys(
        (aten.mm.default, aten.bmm.default, aten.matmul.default), lambda c: layers.product(c, 0, 1)
    ),
    aten.addmm.default: layers.addmm,
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _binary("add")),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _binary("sub")),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _binary("mul")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _binary("real_div")),
    aten.rsub.Scalar: _rsub,
    aten.maximum.default: _binary("maximum"),
    aten.minimum.default: _binary("minimum"),
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _binary("greater")),
    **dict.fromkeys((aten.ge.Scalar, aten.ge.Tensor), _binary("greater_equal")),
    **dict.fromkeys((aten.lt.Scalar, aten.lt.Tensor), _binary("less")),
    **dict.fromkeys((aten.le.Scalar, aten.le.Tensor), _binary("less_equal")),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _binary("equal")),
    **dict.fromkeys((aten.ne.Scalar, aten.ne.Tensor), _binary("not_equal")),
    aten.logical_and.default: _logical("logical_and"),
    aten.logical_or.default: _logical("logical_or"),
    **dict.fromkeys(
        (aten.logical_not.default, aten.bitwise_not.default),
        lambda c: c.b.add("logical_not", x=c.var(0, "bool")),
    ),
    aten.where.self: _where,
    aten._to_copy.default: lambda c: c.var(0),
    aten.relu.default: _unary("relu"),
    aten.sign.default: _unary("sign"),
    aten.exp.default: _unary("exp"),
    aten.log.default: _unary("log"),
    aten.log1p.default: lambda c: c.b.add("log", x=c.b.add("add", x=c.var(0), y=c.b.number(1.0, c.kind))),
    aten.expm1.default: lambda c: c.b.add("sub", x=c.b.add("exp", x=c.var(0)), y=c.b.number(1.0, c.kind)),
    aten.sqrt.default: _unary("sqrt"),
    aten.rsqrt.default: lambda c: c.b.add("rsqrt", x=c.var(0), epsilon=layers.TINY[c.kind]),
    aten.reciprocal.default: lambda c: c.b.add("real_div", x=c.b.number(1.0, c.kind), y=c.var(0)),
    aten.neg.default: lambda c: c.b.add("mul", x=c.var(0), y=c.b.number(-1.0, c.kind)),
    aten.abs.default: _unary("abs"),
    aten.tanh.default: _unary("tanh"),
    aten.sigmoid.default: _unary("sigmoid"),
    aten.erf.default: _unary("erf"),
    aten.sin.default: _unary("sin"),
    aten.cos.default: _unary("cos"),
    aten.floor.default: _unary("floor"),
    aten.ceil.default: _unary("ceil"),
    aten.gelu.default: lambda c: c.b.add(
        "gelu", x=c.var(0), mode="EXACT" if c[1] == "none" else "TANH_APPROXIMATION"
    ),
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _binary("pow"),
    aten.elu.default: _elu,
    aten.clamp_min.default: _clamp(1, None),
    aten.clamp_max.default: _clamp(None, 1),
    aten.clamp.default: _clamp(1, 2),
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _reduce("reduce_sum")),
    **dict.fromkeys((aten.mean.dim, aten.mean.default), _reduce("reduce_mean")),
    aten.amax.default: _reduce("reduce_max"),
    aten.amin.default: _reduce("reduce_min"),
    aten._softmax.default: layers.softmax,
    aten._log_softmax.default: layers.log_softmax,
    **dict.fromkeys((aten.max_pool2d.default, aten.max_pool3d.default), layers.max_pool),
    **dict.fromkeys((aten.avg_pool2d.default, aten.avg_pool3d.default), layers.avg_pool),
    **dict.fromkeys((aten.var.correction, aten.var_mean.correction), layers.variance),
    aten.native_layer_norm.default: layers.layer_norm,
    aten.native_group_norm.default: layers.group_norm,
    aten.repeat.default: _repeat,
    aten.embedding.default: _embedding,
    aten.index_select.default: _index_select,
    aten.index.Tensor: _index,
    **dict.fromkeys((aten.index_put.default, aten._unsafe_index_put.default), _index_put),
    aten.scalar_tensor.default: _fill(0),
    **dict.fromkeys((aten.full.default, aten.full_like.default), _fill(1)),
    **dict.fromkeys((aten.ones_like.default, aten.ones.default), _fill(None, 1.0)),
    **dict.fromkeys((aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default), _fill(None, 0.0)),
}
