"""Values with their axes in any order: LiteRT wants channels last, the traced graphs have them first.

A value is a stored tensor and the order in which its logical axes lie there. Permuting is then free, most
reshapes are plain, and a TRANSPOSE is made only where two orders meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from exporters.litert_graph import Graph

Order = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """`shape` is the logical one; axis j of the stored tensor is the logical axis order[j]."""

    tensor: int
    shape: tuple[int, ...]
    order: Order
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def axis(self, dim: int) -> int:
        """Where a logical axis is stored."""
        return self.order.index(dim % len(self.order))


def plain(rank: int) -> Order:
    """The order of PyTorch's own layout."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """N, spatial axes, C."""
    return (0, *range(2, rank), 1)


class Layouts:
    """Emits operators on values of any order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[int, Order, Order], Value] = {}

    def emit(
        self,
        name: str,
        inputs: Sequence[Value | int],
        shape: Sequence[int],
        order: Order | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Value:
        """Append an operator whose result has the logical `shape` stored in `order` (default: plain)."""
        order = plain(len(shape)) if order is None else order
        tensors = [value.tensor if isinstance(value, Value) else value for value in inputs]
        stored = [shape[axis] for axis in order]
        return Value(self.graph.add(name, tensors, stored, dtype, **options), tuple(shape), order, dtype)

    def constant(self, array: np.ndarray[Any, Any], dtype: torch.dtype) -> Value:
        """A constant in plain order."""
        return Value(self.graph.constant(array), array.shape, plain(array.ndim), dtype)

    def number(self, value: float, dtype: torch.dtype, rank: int) -> Value:
        """A constant of one element that broadcasts against `rank` axes."""
        array = torch.full((1,) if rank else (), value, dtype=dtype).numpy()
        return self.constant(array, dtype)

    def stored_as(self, value: Value, shape: Sequence[int], order: Order | None = None) -> Value:
        """The stored elements as they are, under another shape."""
        order = plain(len(shape)) if order is None else order
        stored = [shape[axis] for axis in order]
        if self.graph.shape(value.tensor) == stored:
            return Value(value.tensor, tuple(shape), order, value.dtype)
        key = (value.tensor, (-1, *stored), order)
        if key not in self._known:
            self._known[key] = self.emit(
                "RESHAPE", [value, self.graph.ints(stored)], shape, order, value.dtype,
                options="ReshapeOptions", newShape=stored,
            )  # fmt: skip
        return Value(self._known[key].tensor, tuple(shape), order, value.dtype)

    def to(self, value: Value, order: Order) -> Value:
        """The value stored in `order`."""
        if value.order == order:
            return value
        sizes = [axis for axis in value.order if value.shape[axis] != 1]
        if sizes == [axis for axis in order if value.shape[axis] != 1]:
            return self.stored_as(value, value.shape, order)
        key = (value.tensor, value.order, order)
        if key not in self._known:
            moved = [value.order.index(axis) for axis in order]
            self._known[key] = self.emit(
                "TRANSPOSE", [value, self.graph.ints(moved)], value.shape, order, value.dtype,
                options="TransposeOptions",
            )  # fmt: skip
        return self._known[key]

    def plain(self, value: Value) -> Value:
        """The value in PyTorch's own layout."""
        return self.to(value, plain(len(value.shape)))

    def free(self, value: Value, order: Order) -> bool:
        """Whether `to` needs no new TRANSPOSE."""
        sizes = [axis for axis in value.order if value.shape[axis] != 1]
        same = sizes == [axis for axis in order if value.shape[axis] != 1]
        return same or (value.tensor, value.order, order) in self._known

    def permute(self, value: Value, dims: Sequence[int]) -> Value:
        """Axis i of the result is axis dims[i]; nothing moves."""
        rank = len(value.shape)
        dims = [d % rank for d in dims]
        order = tuple(dims.index(axis) for axis in value.order)
        return Value(value.tensor, tuple(value.shape[d] for d in dims), order, value.dtype)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """PyTorch's reshape: free of a TRANSPOSE where the axes that merge or split lie side by side."""
        blocks = _blocks(value.shape, shape)
        spread = [axis for axis in value.order if value.shape[axis] != 1]
        at = {axis: place for place, axis in enumerate(spread)}
        for old, _ in blocks:
            if [at[axis] - at[old[0]] for axis in old] != list(range(len(old))):
                return self.stored_as(self.plain(value), shape)
        blocks.sort(key=lambda block: at[block[0][0]])
        order = [axis for _, new in blocks for axis in new]
        ones = [axis for axis, size in enumerate(shape) if size == 1]
        if order == sorted(order):
            order, ones = list(range(len(shape))), []
        return self.stored_as(value, shape, (*order, *ones))

    def aligned(self, values: Sequence[Value], shape: Sequence[int]) -> tuple[list[Value], Order]:
        """Operands that broadcast to `shape`, all in one order: the one that moves the fewest elements."""
        rank, whole = len(shape), math.prod(shape)
        full = [v for v in values if len(v.shape) == rank]
        orders = {v.order for v in full if v.numel == whole} or {v.order for v in full} or {plain(rank)}
        order = min(
            sorted(orders, reverse=True),  # channels last before plain
            key=lambda o: sum(v.numel for v in full if not self.free(v, o)),
        )
        out = []
        for value in values:
            if value.numel == 1:
                out.append(self.stored_as(value, (1,) if rank else ()))
                continue
            if len(value.shape) < rank:
                lifted = (*[1] * (rank - len(value.shape)), *value.shape)
                value = self.stored_as(self.plain(value), lifted)
            out.append(self.to(value, order))
        return out, order


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes with equal products in both shapes; axes of length 1 are left out."""
    sources = [axis for axis, size in enumerate(old) if size != 1]
    targets = [axis for axis, size in enumerate(new) if size != 1]
    blocks: list[tuple[list[int], list[int]]] = []
    while sources:
        left, right = [sources.pop(0)], [targets.pop(0)]
        a, b = old[left[0]], new[right[0]]
        while a != b:
            if a < b:
                left.append(sources.pop(0))
                a *= old[left[-1]]
            else:
                right.append(targets.pop(0))
                b *= new[right[-1]]
        blocks.append((left, right))
    return blocks
