"""ATen operators of lowered graphs as ONNX operators: one entry of `TABLE` each.

PyTorch's own exporter knows more operators, but spends 60 s on a step of 1,600 nodes, most of it on
decomposing once more what is lowered already, and leaves casts behind; this table takes one second.
`exporters.onnx` uses PyTorch's exporter for a program with an operator that is missing here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch.fx import GraphModule, Node

from clue_mobile.memory.barrier import after
from exporters import onnx_after, onnx_norms, onnx_products, onnx_windows
from exporters.onnx_graph import Builder, Call, Result, UnsupportedError, onnx_type

aten = torch.ops.aten


def _unary(op: str) -> Callable[[Call], Result]:
    return lambda c: c.b.add(op, c.operand(0, c.out.dtype))


def _binary(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        dtype = c.computed()
        if dtype == torch.bool and op != "Equal":
            raise UnsupportedError(f"{op} of booleans")
        left, right = c.operand(0, dtype), c.operand(1, dtype)
        return c.b.add(op, left, _times_alpha(c, right))

    return translate


def _times_alpha(c: Call, value: str) -> Result:
    """add, sub and rsub carry a factor of their second term."""
    alpha = c.named("alpha")
    return value if alpha in (None, 1) else c.b.add("Mul", value, c.b.scalar(alpha, c.out.dtype))


def _reduce(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c.operand(0, c.out.dtype)  # the sum of booleans is their count
        axes = c.named("dim") or range(len(c.shape(0)))
        if not len(c.shape(0)):
            return c.b.add("Identity", value)
        return c.b.add(op, value, c.b.ints(axes), keepdims=int(bool(c.named("keepdim"))))

    return translate


def _reshape(c: Call) -> Result:
    return c.b.add("Reshape", c[0], c.b.ints(c.out.shape))


def _transpose(c: Call) -> Result:
    order = list(range(len(c.shape(0))))
    a, b = (0, len(order) - 1) if c.named("dim0") is None else (c[1], c[2])
    order[a], order[b] = order[b], order[a]
    return c.b.add("Transpose", c[0], perm=order)


def _slice(c: Call) -> Result:
    dim = c[1] % len(c.shape(0))
    size = c.shape(0)[dim]
    start, end = c[2] or 0, size if c[3] is None else min(c[3], size)
    return c.b.add("Slice", c[0], c.b.ints([start]), c.b.ints([end]), c.b.ints([dim]), c.b.ints([c[4]]))


def _logical(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        tensors = [a.meta["val"] for a in c.node.args]  # type: ignore[union-attr]
        if any(t.dtype != torch.bool for t in tensors):
            raise UnsupportedError(f"{op} of values that are no booleans")
        return c.b.add(op, *[c[i] for i in range(len(tensors))])

    return translate


def _argmax(c: Call) -> Result:
    if c[1] is None:
        raise UnsupportedError("argmax over all axes")
    return c.b.add("ArgMax", c[0], axis=c[1], keepdims=int(c[2]))


def _flip(c: Call) -> Result:
    rank, axes = len(c.shape(0)), c[1]
    lowest = np.iinfo(np.int64).min
    ends = ([-1] * len(axes), [lowest] * len(axes), [axis % rank for axis in axes], [-1] * len(axes))
    return c.b.add("Slice", c[0], *map(c.b.ints, ends))


def _select(c: Call) -> Result:
    return c.b.add("Gather", c[0], c.b.constant(np.asarray(c[2], np.int64)), axis=c[1])


def _pad(c: Call) -> Result:
    rank, pad = len(c.shape(0)), c[1]
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    return c.b.add("Pad", c[0], c.b.ints([*before, *after]), c.b.scalar(c[2], c.out.dtype))


def _addmm(c: Call) -> Result:
    return c.b.add("Gemm", c[1], c[2], c[0], beta=float(c[3]), alpha=float(c[4]))


def _clamp(low: int | None, high: int | None) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c.operand(0, c.out.dtype)
        for op, index in (("Max", low), ("Min", high)):
            if index is not None and c[index] is not None:
                value = c.b.add(op, value, c.operand(index, c.out.dtype))
        return value

    return translate


def _fill(value_index: int | None, value: float = 0.0) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        number = c[value_index] if value_index is not None else value
        constant = c.b.scalar(number, c.out.dtype)
        return c.b.add("Expand", constant, c.b.ints(c.out.shape)) if c.out.dim() else constant

    return translate


def _power(c: Call) -> Result:
    base = c.operand(0, c.out.dtype)
    return c.b.add("Mul", base, base) if c[1] == 2 else c.b.add("Pow", base, c.operand(1, c.out.dtype))


def _rsub(c: Call) -> Result:
    return c.b.add("Sub", c.operand(1, c.out.dtype), _times_alpha(c, c.operand(0, c.out.dtype)))


def _where(c: Call) -> Result:
    return c.b.add("Where", c[0], c.operand(1, c.out.dtype), c.operand(2, c.out.dtype))


def _unbind(c: Call) -> Result:
    dim = c[1] % len(c.shape(0))
    return tuple(
        c.b.add("Gather", c[0], c.b.constant(np.asarray(i, np.int64)), axis=dim)
        for i in range(c.shape(0)[dim])
    )


TABLE: dict[Any, Callable[[Call], Result]] = {
    **onnx_windows.TABLE,
    **onnx_norms.TABLE,
    **dict.fromkeys(
        (
            aten.reshape.default,
            aten.view.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        _reshape,
    ),
    **dict.fromkeys((aten.transpose.int, aten.t.default), _transpose),
    aten.permute.default: lambda c: c.b.add("Transpose", c[0], perm=[d % len(c.shape(0)) for d in c[1]]),
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.index_select.default: lambda c: c.b.add("Gather", c[0], c[2], axis=c[1]),
    aten.flip.default: _flip,
    aten.unbind.int: _unbind,
    aten.expand.default: lambda c: c.b.add("Expand", c[0], c.b.ints(c.out.shape)),
    aten.cat.default: lambda c: c.b.add("Concat", *c.operands(0, c.out.dtype), axis=c[1]),
    aten.constant_pad_nd.default: _pad,
    aten.mm.default: onnx_products.mm,
    **dict.fromkeys((aten.bmm.default, aten.matmul.default), _binary("MatMul")),
    aten.addmm.default: _addmm,
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _binary("Add")),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _binary("Sub")),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _binary("Mul")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _binary("Div")),
    aten.rsub.Scalar: _rsub,
    aten.maximum.default: _binary("Max"),
    aten.minimum.default: _binary("Min"),
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _binary("Greater")),
    **dict.fromkeys((aten.ge.Scalar, aten.ge.Tensor), _binary("GreaterOrEqual")),
    **dict.fromkeys((aten.lt.Scalar, aten.lt.Tensor), _binary("Less")),
    **dict.fromkeys((aten.le.Scalar, aten.le.Tensor), _binary("LessOrEqual")),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _binary("Equal")),
    **dict.fromkeys((aten.ne.Scalar, aten.ne.Tensor), lambda c: c.b.add("Not", _binary("Equal")(c))),
    **dict.fromkeys((aten.logical_and.default, aten.bitwise_and.Tensor), _logical("And")),
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _logical("Or")),
    **dict.fromkeys((aten.logical_not.default, aten.bitwise_not.default), _logical("Not")),
    aten.where.self: _where,
    aten._to_copy.default: lambda c: c.b.add("Cast", c[0], to=onnx_type(c.out.dtype)),
    aten.relu.default: _unary("Relu"),
    **dict.fromkeys((aten.sign.default, aten.sgn.default), _unary("Sign")),
    aten.sin.default: _unary("Sin"),
    aten.cos.default: _unary("Cos"),
    aten.floor.default: _unary("Floor"),
    aten.exp.default: _unary("Exp"),
    aten.log.default: _unary("Log"),
    aten.sqrt.default: _unary("Sqrt"),
    aten.rsqrt.default: lambda c: c.b.add("Reciprocal", c.b.add("Sqrt", c.operand(0, c.out.dtype))),
    aten.reciprocal.default: _unary("Reciprocal"),
    aten.neg.default: _unary("Neg"),
    aten.abs.default: _unary("Abs"),
    aten.tanh.default: _unary("Tanh"),
    aten.sigmoid.default: _unary("Sigmoid"),
    aten.erf.default: _unary("Erf"),
    aten.gelu.default: lambda c: c.b.add("Gelu", c[0], approximate=c[1]),
    aten.pow.Tensor_Scalar: _power,
    **dict.fromkeys((aten.pow.Tensor_Tensor, aten.pow.Scalar), _binary("Pow")),
    **dict.fromkeys((aten.clamp_min.default, aten.clamp_min.Tensor), _clamp(1, None)),
    **dict.fromkeys((aten.clamp_max.default, aten.clamp_max.Tensor), _clamp(None, 1)),
    **dict.fromkeys((aten.clamp.default, aten.clamp.Tensor), _clamp(1, 2)),
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _reduce("ReduceSum")),
    **dict.fromkeys((aten.mean.dim, aten.mean.default), _reduce("ReduceMean")),
    aten.amax.default: _reduce("ReduceMax"),
    aten.amin.default: _reduce("ReduceMin"),
    aten.argmax.default: _argmax,
    aten._softmax.default: lambda c: c.b.add("Softmax", c[0], axis=c[1]),
    aten._log_softmax.default: lambda c: c.b.add("LogSoftmax", c[0], axis=c[1]),
    aten.scalar_tensor.default: _fill(0),
    aten.full.default: _fill(1),
    aten.full_like.default: _fill(1),
    aten.new_full.default: _fill(2),
    **dict.fromkeys((aten.ones_like.default, aten.ones.default, aten.new_ones.default), _fill(None, 1.0)),
    **dict.fromkeys((aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default), _fill(None, 0.0)),
    # memory whose content nothing may depend on
    **dict.fromkeys((aten.empty.memory_format, aten.new_empty.default), _fill(None, 0.0)),
}


def translate(
    graph: GraphModule,
    opset: int | Mapping[str, int],
    more: Mapping[Any, Callable[[Call], Result]] | None = None,
) -> onnx.ModelProto:
    """A ModelProto with inputs i0, i1, ...; its outputs have the names of the values that they are.

    opset: the standard's version, or one for each domain. more: translations besides `TABLE`.

    Raises UnsupportedError naming the first operator that the table lacks.
    """
    builder, table = Builder(), {**TABLE, **(more or {})}
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    names: dict[Node, Result] = {node: f"i{number}" for number, node in enumerate(placeholders)}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            names[node] = builder.constant(getattr(graph, str(node.target)).detach().numpy())
        elif node.op == "call_function" and node.target is operator.getitem:
            names[node] = names[node.args[0]][node.args[1]]
        elif node.op == "call_function" and node.target is after:
            names[node] = onnx_after.after(builder, node, names)
        elif node.op == "call_function" and onnx_after.joined(node):
            names[node] = names[node.args[0]]
        elif node.op == "call_function":
            if node.target not in table:
                raise UnsupportedError(str(node.target))
            names[node] = table[node.target](Call(builder, node, names))
    (results,) = next(n for n in graph.graph.nodes if n.op == "output").args
    # an output is no initializer: that would be one which a caller may replace
    for node in dict.fromkeys(results):
        if node.op == "get_attr":
            names[node] = builder.add("Identity", names[node])
    given = [_info(names[node], node) for node in placeholders]
    made = [_info(names[node], node) for node in results]
    constants = list(builder.constants.values())
    graph_proto = helper.make_graph(
        builder.nodes, "program", given, made, constants, value_info=builder.known
    )
    versions = {"": opset} if isinstance(opset, int) else opset
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph_proto, opset_imports=opsets, ir_version=9)


def _info(name: str, node: Node) -> onnx.ValueInfoProto:
    value = node.meta["val"]
    return helper.make_tensor_value_info(name, onnx_type(value.dtype), list(value.shape))
