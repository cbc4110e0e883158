"""Views, pieces and constant tensors as LiteRT's builtin operators: one entry of `TABLE` each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from exporters.litert_call import Call, Result

aten = torch.ops.aten

# operators that expand their arguments themselves
_EXPANDING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default,
    aten.minimum.default, aten.gt.Tensor, aten.ge.Tensor, aten.lt.Tensor, aten.le.Tensor, aten.eq.Tensor,
    aten.ne.Tensor, aten.where.self,
}  # fmt: skip


def _permute(c: Call) -> Result:
    return c.l.permute(c[0], c[1])


def _transpose(c: Call) -> Result:
    dims = list(range(len(c[0].shape)))
    a, b = (0, len(dims) - 1) if c.named("dim0") is None else (c[1], c[2])
    dims[a], dims[b] = dims[b], dims[a]
    return c.l.permute(c[0], dims)


def _slice(c: Call) -> Result:
    dim = c[1] % len(c[0].shape)
    size = c[0].shape[dim]
    start = min(max((c[2] or 0) + (size if (c[2] or 0) < 0 else 0), 0), size)
    return c.slice(c[0], dim, start, c.out.shape[dim], c[4])


def _select(c: Call) -> Result:
    dim = c[1] % len(c[0].shape)
    cut = c.slice(c[0], dim, c[2] % c[0].shape[dim], 1)
    return c.l.reshape(cut, c.out.shape)


def _pad(c: Call) -> Result:
    rank, pad = len(c[0].shape), c[1]
    pads = [(0, 0)] * rank
    for i in range(len(pad) // 2):
        pads[rank - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    return c.pad(c[0], pads, float(c[2] or 0))


def _cat(c: Call) -> Result:
    values = [v for v in c.operands(0, c.out.dtype) if v.numel]
    return c.concatenate(values, c[1] % len(c.out.shape))


def _expand(c: Call) -> Result:
    value, shape = c[0], tuple(c.out.shape)
    lifted = (*[1] * (len(shape) - len(value.shape)), *value.shape)
    value = c.l.reshape(value, lifted)
    if lifted == shape or _all_broadcast(c.node, lifted):
        return value
    stored = [shape[axis] for axis in value.order]
    return c.l.emit(
        "BROADCAST_TO", [value, c.graph.ints(stored)], shape, value.order, value.dtype,
        options="BroadcastToOptions",
    )  # fmt: skip


def _all_broadcast(node: Node, shape: Sequence[int]) -> bool:
    """Whether every user of an expanded value expands it itself."""
    for user in node.users:
        if user.target not in _EXPANDING:
            return False
        others = [a.meta["val"].shape for a in user.args if isinstance(a, Node) and a is not node]
        if torch.broadcast_shapes(shape, *others) != user.meta["val"].shape:
            return False
    return True


def _fill(value_index: int | None, number: float = 0.0) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c.raw(value_index) if value_index is not None else number
        shape, dtype = tuple(c.out.shape), c.out.dtype
        if c.node.users and _all_broadcast(c.node, (1,) * len(shape)):
            array = torch.full((1,) * len(shape), value, dtype=dtype).numpy()
            return c.l.constant(array, dtype)
        scalar = c.l.constant(torch.full((), value, dtype=dtype).numpy(), dtype)
        if not shape:
            return scalar
        return c.l.emit("FILL", [c.graph.ints(shape), scalar], shape, dtype=dtype, options="FillOptions")

    return translate


def _flip(c: Call) -> Result:
    value = c[0]
    for dim in c[1]:  # LiteRT turns neighbouring axes around at once, and no others
        axis = c.graph.ints([value.axis(dim)])
        value = c.l.emit(
            "REVERSE_V2", [value, axis], value.shape, value.order, value.dtype, options="ReverseV2Options"
        )
    return value


def _index_select(c: Call) -> Result:
    value, dim, index = c[0], c[1] % len(c[0].shape), c.operand(2, torch.int32)
    return c.l.emit(
        "GATHER", [value, index], c.out.shape, value.order, value.dtype,
        options="GatherOptions", axis=value.axis(dim), batchDims=0,
    )  # fmt: skip


def _unbind(c: Call) -> Result:
    value, dim = c[0], c[1] % len(c[0].shape)
    rest = [n for d, n in enumerate(value.shape) if d != dim]
    return tuple(c.l.reshape(c.slice(value, dim, i, 1), rest) for i in range(value.shape[dim]))


TABLE: dict[Any, Callable[[Call], Result]] = {
    **dict.fromkeys(
        (
            aten.reshape.default,
            aten.view.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        lambda c: c.l.reshape(c[0], c.out.shape),
    ),
    **dict.fromkeys((aten.transpose.int, aten.t.default), _transpose),
    aten.permute.default: _permute,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.index_select.default: _index_select,
    aten.unbind.int: _unbind,
    aten.flip.default: _flip,
    aten.expand.default: _expand,
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
    aten.scalar_tensor.default: _fill(0),
    **dict.fromkeys((aten.full.default, aten.full_like.default), _fill(1)),
    aten.new_full.default: _fill(2),
    **dict.fromkeys((aten.ones_like.default, aten.ones.default, aten.new_ones.default), _fill(None, 1.0)),
    **dict.fromkeys((aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default), _fill(None, 0.0)),
    # memory whose content nothing may depend on
    **dict.fromkeys((aten.empty.memory_format, aten.new_empty.default), _fill(None, 0.0)),
}
# whose results may stay as small as they are where all that read them expand them
LAZY = {target for target in TABLE if "full" in str(target) or "ones" in str(target)} | {
    aten.expand.default, aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default,
    aten.empty.memory_format, aten.new_empty.default,
}  # fmt: skip
