"""Reading and writing by index: relative position tables, embeddings, selections.

Gather and scatter are what runtimes have least in common, and what a backward pass of one is on none of them
fast. An index that is part of the model is known here, so the read is a slice where it can be, and else the
product with a matrix of ones and zeros, whose backward pass is the product with its transpose. Only what the
data decides is compared on the device.

This is a pass over the traced graph and no part of the table, since a tracer has no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from clue_mobile.lowering.graft import Table, constant, graft

aten = torch.ops.aten

_LARGEST = 1 << 20  # elements of a stored matrix of ones and zeros; a larger one is made on the device

Known = np.ndarray[Any, np.dtype[np.int64]]
Index = Known | Tensor | None  # in NumPy what the model says, so that working it out leaves no trace


def _one_hot(index: Known | Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """[k, size] with a 1 at `index` [k] of each row."""
    if isinstance(index, np.ndarray) and index.size * size <= _LARGEST:
        rows = np.zeros((index.size, size), np.float64 if dtype == torch.float64 else np.float32)
        rows[np.arange(index.size), index] = 1
        return torch.from_numpy(rows)
    index = torch.from_numpy(index) if isinstance(index, np.ndarray) else index
    return (index.reshape(-1, 1) == torch.arange(size).reshape(1, -1)).to(dtype)


def _run(index: Known | Tensor) -> tuple[int, int] | None:
    """(start, length) where the index counts up one by one."""
    if not isinstance(index, np.ndarray) or not index.size:
        return None
    start = int(index[0])
    return (start, index.size) if index.tolist() == list(range(start, start + index.size)) else None


def _take(rows: Tensor, index: Known | Tensor) -> Tensor:
    """rows[index] of rows [n, r] and index [k]."""
    if run := _run(index):
        return rows.narrow(0, *run)
    return torch.mm(_one_hot(index, rows.shape[0], rows.dtype), rows)


def _spread(values: Tensor, index: Known | Tensor, size: int) -> Tensor:
    """The adjoint of `_take`: values [k, r] added up at their rows, [size, r]."""
    if run := _run(index):
        start, length = run
        pads = (0, 0, start, size - start - length)
        return torch.nn.functional.pad(values, pads) if any(pads) else values
    return torch.mm(_one_hot(index, size, values.dtype).t(), values)


class _Plan:
    """Where the axes go when x is read at `indices` (None: the whole axis), as x[indices] has it."""

    def __init__(self, shape: Sequence[int], indices: Sequence[Index]) -> None:
        self.shape = list(shape)
        self.dims = [dim for dim, index in enumerate(indices) if index is not None]
        self.others = [dim for dim in range(len(shape)) if dim not in self.dims]
        self.size = math.prod(shape[dim] for dim in self.dims)
        given = [index for index in indices if index is not None]
        self.flat: Known | Tensor
        if isinstance(given[0], Tensor):  # an embedding's, and its only one
            self.flat, self.index_shape = given[0].reshape(-1), list(given[0].shape)
        else:
            places = np.broadcast_arrays(*[g % shape[d] for g, d in zip(given, self.dims, strict=True)])
            self.index_shape = list(places[0].shape)
            self.flat = np.ravel_multi_index(tuple(places), [shape[dim] for dim in self.dims]).reshape(-1)
        # axes of the index stand where those indexed were if these are neighbours, else in front
        together = self.dims == list(range(self.dims[0], self.dims[0] + len(self.dims)))
        at, width = (self.dims[0] if together else 0), len(self.index_shape)
        self.rest = [self.shape[dim] for dim in self.others]
        after = list(range(width, width + len(self.rest)))
        self.order = [*after[:at], *range(width), *after[at:]]  # from [index axes, others] to the result

    def rows(self, x: Tensor) -> Tensor:
        return x.permute(*self.dims, *self.others).reshape(self.size, -1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        moved = [*self.dims, *self.others]
        shape = [self.shape[dim] for dim in moved]
        return rows.reshape(shape).permute([moved.index(dim) for dim in range(len(moved))])

    def result(self, taken: Tensor) -> Tensor:
        return taken.reshape(*self.index_shape, *self.rest).permute(self.order)

    def from_result(self, values: Tensor) -> Tensor:
        """The inverse of `result`; values may still have to be broadcast."""
        shape = [*self.index_shape, *self.rest]
        values = values.expand([shape[axis] for axis in self.order])
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return values.permute(back).reshape(math.prod(self.index_shape), -1)


def read(x: Tensor, indices: Sequence[Index]) -> Tensor:
    """x[indices]."""
    plan = _Plan(x.shape, indices)
    return plan.result(_take(plan.rows(x), plan.flat))


def write(x: Tensor | None, indices: Sequence[Index], values: Tensor, accumulate: bool, shape: Any) -> Tensor:
    """x with `values` written at, or added to, x[indices]; None stands for zeros of `shape`.

    Where an index comes twice and nothing is added, the last one counts.
    """
    plan = _Plan(shape, indices)
    flat, rows = plan.flat, plan.from_result(values)
    if accumulate:
        spread = plan.from_rows(_spread(rows, flat, plan.size))
        return spread if x is None else x + spread
    assert isinstance(flat, np.ndarray)
    last = {place: number for number, place in enumerate(flat.tolist())}
    if len(last) < len(flat):
        rows = _take(rows, np.array(list(last.values())))
    spread = plan.from_rows(_spread(rows, np.array(list(last)), plan.size))
    if x is None:
        return spread
    untouched = torch.tensor([[float(place not in last)] for place in range(plan.size)], dtype=values.dtype)
    return plan.from_rows(plan.rows(x) * untouched) + spread


def embedding_backward(grad: Tensor, index: Known | Tensor, rows: int, padding: int) -> Tensor:
    """Rows [rows, D] that the gradients [..., D] add up to at their index, but for those of the padding."""
    if padding >= 0:
        other = index != padding
        keep = torch.tensor(other.tolist()) if isinstance(other, np.ndarray) else other
        grad = grad * keep.to(grad.dtype).unsqueeze(-1)
    return write(None, [index], grad, True, [rows, grad.shape[-1]])


def _at(index: Tensor, dim: int, k: int, size: int, dtype: torch.dtype) -> Tensor:
    """1 at the k-th index of `dim`, else 0; the shape of the index with `size` elements along `dim`."""
    places = torch.arange(size).reshape(-1, *[1] * (index.dim() - 1 - dim))
    return (index.narrow(dim, k, 1) == places).to(dtype)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """torch.gather: each element of the index picks along `dim` in its own line."""
    dim %= x.dim()
    for axis in range(x.dim()):
        if axis != dim and index.shape[axis] < x.shape[axis]:
            x = x.narrow(axis, 0, index.shape[axis])
    picked = [
        (x * _at(index, dim, k, x.shape[dim], x.dtype)).sum(dim, keepdim=True)
        for k in range(index.shape[dim])
    ]
    return torch.cat(picked, dim) if len(picked) > 1 else picked[0]


def scatter(
    x: Tensor | None, dim: int, index: Tensor, source: Any, shape: Sequence[int], add: bool
) -> Tensor:
    """torch.scatter and scatter_add where the index has all lines of x, or x is None, which means zero."""
    dim %= len(shape)
    if not isinstance(source, Tensor):
        assert x is not None
        source = torch.full(index.shape, source, dtype=x.dtype)
    for axis in range(source.dim()):
        if index.shape[axis] < source.shape[axis]:
            source = source.narrow(axis, 0, index.shape[axis])
    for k in range(index.shape[dim]):
        here = _at(index, dim, k, shape[dim], source.dtype)
        spread = source.narrow(dim, k, 1) * here
        before = None if x is None else x if add else x * (1 - here)
        x = spread if before is None else before + spread
    assert x is not None
    lines = [index.shape[axis] if axis != dim else shape[dim] for axis in range(len(shape))]
    after = [each for have, want in zip(lines[::-1], shape[::-1], strict=True) for each in (0, want - have)]
    return torch.nn.functional.pad(x, after) if any(after) else x


_SCATTERS = {
    aten.scatter.src: False,
    aten.scatter.value: False,
    aten.scatter_add.default: True,
}
_PUTS = {aten.index_put.default, aten._unsafe_index_put.default}
_READS = {aten.index.Tensor, aten._unsafe_index.Tensor}


def _is_zeros(graph_module: GraphModule, node: Any) -> bool:
    value = constant(graph_module, node)
    if value is not None:
        return not value.any()
    if node.target in (aten.full.default, aten.full_like.default):
        return bool(node.args[1] == 0)
    return node.target in (aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)


def _indices(node: Node) -> list[Any] | None:
    """The indices of a node that reads or writes by them, None for any other."""
    args: Any = node.args
    if node.target in _READS or node.target in _PUTS:
        return list(args[1])
    if node.target in (aten.index_select.default, aten.index_add.default):
        return [*[None] * (args[1] % len(args[0].meta["val"].shape)), args[2]]
    return [args[1]] if node.target is aten.embedding.default else None


def _content(graph_module: GraphModule, node: Any) -> Known | None:
    value = constant(graph_module, node)
    return None if value is None else np.asarray(value.numpy(), np.int64)


def _replace(graph_module: GraphModule, node: Node, table: Table) -> bool:
    """Whether the node was one of those above, and is now spelled by other operators."""
    args: Any = node.args
    if node.target is aten.embedding_dense_backward.default:
        return _replace_embedding(graph_module, node, table)
    if node.target is aten.gather.default or node.target in _SCATTERS:
        return _replace_lines(graph_module, node, table)
    indices = _indices(node)
    if indices is None:
        return False
    values = [_content(graph_module, index) for index in indices]
    by_data = [i for i, v in zip(indices, values, strict=True) if v is None and i is not None]
    if any(i.meta["val"].dtype != torch.int64 for i in indices if i is not None):
        return False
    if by_data and node.target is not aten.embedding.default:
        return False  # it may be negative, and is nothing that a classifier of pixels does

    def full(given: Sequence[Tensor]) -> list[Index]:
        rest = iter(given)
        return [
            next(rest) if value is None and index is not None else value
            for index, value in zip(indices, values, strict=True)
        ]

    shape = list(args[0].meta["val"].shape)
    if node.target in _PUTS or node.target is aten.index_add.default:
        if node.kwargs:
            return False
        added = node.target is aten.index_add.default or bool(args[3] if len(args) > 3 else False)
        source = args[3] if node.target is aten.index_add.default else args[2]
        if _is_zeros(graph_module, args[0]):
            graft(graph_module, node, lambda v: write(None, full(()), v, added, shape), [source], table)
        else:
            graft(
                graph_module, node, lambda x, v: write(x, full(()), v, added, shape), [args[0], source], table
            )
    else:
        graft(graph_module, node, lambda x, *given: read(x, full(given)), [args[0], *by_data], table)
    return True


def _replace_embedding(graph_module: GraphModule, node: Node, table: Table) -> bool:
    grad, index, rows, padding, by_frequency = node.args
    if by_frequency:
        return False
    known = _content(graph_module, index)
    given = [index] if known is None else []

    def spelled(grad: Tensor, *rest: Tensor) -> Tensor:
        return embedding_backward(grad, rest[0] if known is None else known, rows, padding)  # type: ignore[arg-type]

    graft(graph_module, node, spelled, [grad, *given], table)  # type: ignore[list-item]
    return True


def _replace_lines(graph_module: GraphModule, node: Node, table: Table) -> bool:
    args: Any = node.args
    known = constant(graph_module, args[2])
    given = [args[2]] if known is None else []
    function: Callable[..., Any]
    if node.target is aten.gather.default:
        function = lambda x, *index: gather(x, args[1], *(index or (known,)))  # noqa: E731
        graft(graph_module, node, function, [args[0], *given], table)
        return True
    shape, add = list(args[0].meta["val"].shape), _SCATTERS[node.target]  # type: ignore[index]
    dim = args[1] % len(shape)
    lines = list(args[2].meta["val"].shape)
    zeros = _is_zeros(graph_module, args[0])
    fewer = any(lines[axis] != shape[axis] for axis in range(len(shape)) if axis != dim)
    if node.kwargs or (fewer and not zeros) or (zeros and not isinstance(args[3], Node)):
        return False
    base = [] if zeros else [args[0]]
    source = [args[3]] if isinstance(args[3], Node) else []

    def spelled(*tensors: Tensor) -> Any:
        rest = list(tensors)
        x = None if zeros else rest.pop(0)
        value = rest.pop(0) if source else args[3]
        return scatter(x, dim, rest[0] if rest else known, value, shape, add)  # type: ignore[arg-type]

    graft(graph_module, node, spelled, [*base, *source, *given], table)
    return True


def spell(graph_module: GraphModule, table: Table) -> bool:
    """Replace every read and write by index that has another form; returns whether there was one."""
    nodes = [n for n in graph_module.graph.nodes if n.op == "call_function"]
    return sum(_replace(graph_module, node, table) for node in nodes) > 0  # every one, not the first
