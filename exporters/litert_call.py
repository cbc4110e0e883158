"""One ATen call as its translation sees it, and the operators that many translations are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from exporters.aten_call import AtenCall
from exporters.litert_graph import Graph, activation_number, tensor_type
from exporters.litert_layout import Layouts, Value, plain

F32 = torch.float32
# numbers; XNNPACK adds one after the other, so sums of more go in two stages: as fast, a tenth of the error
_ADDED_AT_ONCE = 256
Result = Any  # a Value, or a tuple of values

_OPTIONS = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions", "POW": "PowOptions",
    "GREATER": "GreaterOptions", "GREATER_EQUAL": "GreaterEqualOptions", "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions", "EQUAL": "EqualOptions", "NOT_EQUAL": "NotEqualOptions",
    "LOGICAL_AND": "LogicalAndOptions", "LOGICAL_OR": "LogicalOrOptions",
}  # fmt: skip


class Call(AtenCall):
    """One ATen node while it is translated; `l` emits operators."""

    def __init__(self, layouts: Layouts, node: Node, values: Mapping[Node, Any]) -> None:
        super().__init__(node, values)
        self.l = layouts

    @property
    def graph(self) -> Graph:
        """Where the operators go."""
        return self.l.graph

    def operand(self, index: int, dtype: torch.dtype) -> Value:
        """A tensor argument, or a number as a constant, as a value of `dtype`."""
        return self._operand(self._args[index], dtype)

    def operands(self, index: int, dtype: torch.dtype) -> list[Value]:
        """The same of each tensor of a list."""
        return [self._operand(value, dtype) for value in self._args[index]]

    def _operand(self, value: Any, dtype: torch.dtype) -> Value:
        if isinstance(value, Node):
            return self.cast(self._values[value], dtype)
        return self.number(value, len(self.out.shape), dtype)

    # what translations are made of

    def number(self, value: float, rank: int, dtype: torch.dtype = F32) -> Value:
        """A constant that broadcasts against `rank` axes."""
        return self.l.number(value, dtype, rank)

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """The value as another type."""
        source, target = tensor_type(value.dtype), tensor_type(dtype)
        if source == target:
            return Value(value.tensor, value.shape, value.order, dtype)
        return self.l.emit(
            "CAST", [value], value.shape, value.order, dtype,
            options="CastOptions", inDataType=source, outDataType=target,
        )  # fmt: skip

    def unary(self, op: str, value: Value, options: str | None = None, **fields: Any) -> Value:
        """Element by element."""
        return self.l.emit(op, [value], value.shape, value.order, value.dtype, options=options, **fields)

    def binary(
        self,
        op: str,
        left: Value,
        right: Value,
        shape: Sequence[int],
        dtype: torch.dtype = F32,
        activation: str | None = None,
    ) -> Value:
        """Element by element with broadcasting; the result has this shape. `activation` is fused."""
        values, order = self.l.aligned([left, right], shape)
        fields = {} if activation is None else {"fusedActivationFunction": activation_number(activation)}
        return self.l.emit(op, values, shape, order, dtype, options=_OPTIONS[op], **fields)

    def reduce(self, op: str, value: Value, dims: Iterable[int], keep: bool) -> Value:
        """SUM, MEAN, REDUCE_MAX ... over logical axes."""
        rank = len(value.shape)
        gone = sorted({d % rank for d in dims}) if rank else []
        if not gone:
            return value
        inner = sorted((d for d in gone if value.shape[d] > 1), key=value.axis)[1:]
        if op in ("SUM", "MEAN") and inner and math.prod(value.shape[d] for d in gone) > _ADDED_AT_ONCE:
            value = self.reduce(op, value, inner, True)
        rest = [axis for axis in range(rank) if axis not in gone]
        axes = self.graph.ints(sorted(value.axis(dim) for dim in gone))
        if keep:
            shape: Sequence[int] = [1 if axis in gone else size for axis, size in enumerate(value.shape)]
            order = value.order
        else:
            shape = [value.shape[axis] for axis in rest]
            order = tuple(rest.index(axis) for axis in value.order if axis in rest)
        return self.l.emit(
            op, [value, axes], shape, order, value.dtype, options="ReducerOptions", keepDims=keep
        )

    def slice(self, value: Value, dim: int, start: int, size: int, step: int = 1) -> Value:
        """`size` elements of one axis from `start` on, every `step`-th."""
        cuts = {dim: (start, size, step)}
        return self.cut(value, cuts)

    def cut(self, value: Value, cuts: Mapping[int, tuple[int, int, int]]) -> Value:
        """(start, size, step) for some axes."""
        shape, begin = list(value.shape), [0] * len(value.shape)
        strided = {}
        for dim, (start, size, step) in cuts.items():
            if step > 1 and size > 1:
                # one contiguous piece now, every step-th of it below
                span = min(size * step, shape[dim])
                first = min(start, shape[dim] - span)
                strided[dim] = (start - first, size, step)
                start, size = first, span
            shape[dim], begin[value.axis(dim)] = size, start
        if tuple(shape) != value.shape:
            stored = [shape[axis] for axis in value.order]
            value = self.l.emit(
                "SLICE", [value, self.graph.ints(begin), self.graph.ints(stored)], shape, value.order,
                value.dtype, options="SliceOptions",
            )  # fmt: skip
        for dim, (start, size, step) in strided.items():
            value = self._every(value, dim, start, size, step)
        return value

    def _every(self, value: Value, dim: int, start: int, size: int, step: int) -> Value:
        """Every step-th element of an axis, as a slice of [size, step]: XNNPACK has none with strides."""
        axis, shape = value.axis(dim), list(value.shape)
        stored = self.graph.shape(value.tensor)
        shape[dim] = size
        if stored[axis] == size * step:
            outer, inner = math.prod(stored[:axis]), math.prod(stored[axis + 1 :])
            split = self.l.stored_as(value, (outer * size, step * inner))
            return self.l.stored_as(self.slice(split, 1, start * inner, inner), shape, value.order)
        begin, end, steps = [0] * len(stored), list(stored), [1] * len(stored)
        begin[axis], end[axis], steps[axis] = start, start + (size - 1) * step + 1, step
        parts = [self.graph.ints(v) for v in (begin, end, steps)]
        return self.l.emit(
            "STRIDED_SLICE", [value, *parts], shape, value.order, value.dtype, options="StridedSliceOptions"
        )

    def pad(self, value: Value, pads: Sequence[tuple[int, int]], fill: float = 0.0) -> Value:
        """(before, after) for each logical axis."""
        if not any(a or b for a, b in pads):
            return value
        shape = [a + n + b for n, (a, b) in zip(value.shape, pads, strict=True)]
        table = self.graph.constant(np.array([pads[axis] for axis in value.order], np.int32))
        if fill == 0:
            return self.l.emit("PAD", [value, table], shape, value.order, value.dtype, options="PadOptions")
        number = self.graph.constant(torch.full((), fill, dtype=value.dtype).numpy())
        return self.l.emit(
            "PADV2", [value, table, number], shape, value.order, value.dtype, options="PadV2Options"
        )

    def concatenate(self, values: Sequence[Value], dim: int) -> Value:
        """One behind the other along a logical axis."""
        if len(values) == 1:
            return values[0]
        orders = sorted({v.order for v in values}, reverse=True)
        order = min(orders, key=lambda o: sum(v.numel for v in values if not self.l.free(v, o)))
        values = [self.l.to(v, order) for v in values]
        shape = list(values[0].shape)
        shape[dim] = sum(v.shape[dim] for v in values)
        return self.l.emit(
            "CONCATENATION", values, shape, order, values[0].dtype,
            options="ConcatenationOptions", axis=order.index(dim),
        )  # fmt: skip

    def matmul(self, left: Value, right: Value, shape: Sequence[int]) -> Value:
        """[..., M, K] @ [..., K, N], either stored as its transpose."""
        rank = max(len(left.shape), len(right.shape))
        if len(left.shape) != len(right.shape) or rank < 2:
            left, right = (self._lift(v, rank) for v in (left, right))
        kept = plain(rank)
        swapped = (*range(rank - 2), rank - 1, rank - 2)
        flags = []
        operands = []
        for value in (left, right):
            adjoint = not self.l.free(value, kept) and self.l.free(value, swapped)
            operands.append(self.l.to(value, swapped if adjoint else kept))
            flags.append(adjoint)
        return self.l.emit(
            "BATCH_MATMUL", operands, shape, options="BatchMatMulOptions", adjX=flags[0], adjY=flags[1]
        )

    def _lift(self, value: Value, rank: int) -> Value:
        return self.l.reshape(value, (*[1] * (rank - len(value.shape)), *value.shape))


def window_pads(
    size: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[list[tuple[int, int]], list[int]]:
    """Pads for the windows of each spatial axis, and the length that they touch (a rest may stay unused)."""
    pads, touched = [], []
    for n, o, k, s, p, d in zip(size, out, kernel, stride, padding, dilation, strict=True):
        length = (o - 1) * s + d * (k - 1) + 1
        pads.append((p, max(length - n - p, 0)))
        touched.append(length)
    return pads, touched


def is_same(
    size: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Whether LiteRT's SAME padding puts the windows where these explicit pads do."""
    for n, o, k, s, p, d in zip(size, out, kernel, stride, padding, dilation, strict=True):
        total = max((o - 1) * s + d * (k - 1) + 1 - n, 0)
        if o != math.ceil(n / s) or total // 2 != p:
            return False
    return True
