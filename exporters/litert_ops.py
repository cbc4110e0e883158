"""ATen operators of lowered graphs as LiteRT's builtin operators: one entry of `TABLE` each.

litert-torch knows more operators, but spends minutes on a step of 1,300 nodes and leaves a TRANSPOSE at both
sides of each convolution; this table takes seconds. `exporters.litert` uses litert-torch for a program with
an operator that is missing here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from exporters import litert_conv, litert_pool
from exporters.litert_call import Call, Result
from exporters.litert_graph import Graph, Model, UnsupportedError, tensor_type
from exporters.litert_layout import Layouts, Value, channels_last, plain

aten = torch.ops.aten
F32 = torch.float32
_LARGE = 3e38  # whatever is larger than 1 / _LARGE, so every number that is no denormal, becomes 1 or more


def _binary(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        dtype = c.computed()
        if dtype == torch.bool and not op.startswith(("LOGICAL", "EQUAL", "NOT_EQUAL")):
            raise UnsupportedError(f"{op} of booleans")
        left, right = c.operand(0, dtype), _times_alpha(c, c.operand(1, dtype))
        return c.binary(op, left, right, c.out.shape, c.out.dtype)

    return translate


def _times_alpha(c: Call, value: Value) -> Value:
    """add, sub and rsub carry a factor of their second term."""
    alpha = c.named("alpha")
    if alpha in (None, 1):
        return value
    return c.binary("MUL", value, c.number(alpha, len(value.shape), value.dtype), value.shape)


def _unary(op: str, options: str | None = None, **fields: Any) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        return c.unary(op, c.operand(0, c.out.dtype), options, **fields)

    return translate


def _reduce(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c.operand(0, c.out.dtype)
        rank = len(value.shape)
        dims = c.named("dim")
        dims = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
        return c.reduce(op, value, dims, bool(c.named("keepdim")))

    return translate


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
        if user.target not in _BROADCASTING:
            return False
        others = [a.meta["val"].shape for a in user.args if isinstance(a, Node) and a is not node]
        if torch.broadcast_shapes(shape, *others) != user.meta["val"].shape:
            return False
    return True


def _matmul(c: Call) -> Result:
    return c.matmul(c[0], c[1], c.out.shape)


def _addmm(c: Call) -> Result:
    product = c.matmul(c[1], c[2], c.out.shape)
    beta, alpha = (1 if c.named(name) is None else c.named(name) for name in ("beta", "alpha"))
    bias = c[0]
    if alpha != 1:
        product = c.binary("MUL", product, c.number(alpha, 2), product.shape)
    if beta != 1:
        bias = c.binary("MUL", bias, c.number(beta, len(bias.shape)), bias.shape)
    return c.binary("ADD", product, bias, c.out.shape)


def _softmax(op: str, options: str, **fields: Any) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c.operand(0, F32)
        if not value.shape:
            raise UnsupportedError(f"{op} of a single number")
        dim = c[1] % len(value.shape)
        rest = [axis for axis in value.order if axis != dim]
        value = c.l.to(value, (*rest, dim))
        return c.l.emit(op, [value], value.shape, value.order, options=options, **fields)

    return translate


def _layer_norm(c: Call) -> Result:
    x, eps = c[0], c[4]
    rank, width = len(x.shape), len(c[1])
    dims = range(rank - width, rank)
    mean = c.reduce("MEAN", x, dims, True)
    centred = c.binary("SUB", x, mean, x.shape)
    var = c.reduce("MEAN", c.binary("MUL", centred, centred, x.shape), dims, True)
    rstd = c.unary("RSQRT", c.binary("ADD", var, c.number(eps, rank), var.shape))
    out = c.binary("MUL", centred, rstd, x.shape)
    for op, index in (("MUL", 2), ("ADD", 3)):
        if c[index] is not None:
            out = c.binary(op, out, c[index], x.shape)
    return out, mean, rstd


def _clamp(low: int | None, high: int | None) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c.operand(0, c.out.dtype)
        for op, index in (("MAXIMUM", low), ("MINIMUM", high)):
            if index is not None and c.raw(index) is not None:
                value = c.binary(op, value, c.operand(index, c.out.dtype), c.out.shape, c.out.dtype)
        return value

    return translate


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


def _power(c: Call) -> Result:
    base, exponent = c.operand(0, c.out.dtype), c.raw(1)
    if exponent == 2:
        return c.binary("MUL", base, base, base.shape)
    return c.binary("POW", base, c.operand(1, c.out.dtype), c.out.shape)


def _rsub(c: Call) -> Result:
    right = _times_alpha(c, c.operand(0, c.out.dtype))
    return c.binary("SUB", c.operand(1, c.out.dtype), right, c.out.shape)


def _where(c: Call) -> Result:
    values = [c.operand(0, torch.bool), c.operand(1, c.out.dtype), c.operand(2, c.out.dtype)]
    values, order = c.l.aligned(values, c.out.shape)
    return c.l.emit("SELECT_V2", values, c.out.shape, order, c.out.dtype, options="SelectV2Options")


def _reciprocal(c: Call) -> Result:
    value = c.operand(0, F32)
    return c.binary("DIV", c.number(1.0, len(value.shape)), value, value.shape)


def _sign(c: Call) -> Result:
    """Scaled beyond 1 and cut off there: XNNPACK has no SIGN, and it multiplies and cuts in one pass."""
    value = c.operand(0, F32)
    large = c.number(_LARGE, len(value.shape))
    return c.binary("MUL", value, large, value.shape, activation="RELU_N1_TO_1")


def _erf(c: Call) -> Result:
    """LiteRT has no such operator: Abramowitz and Stegun 7.1.26, at most 1.5e-7 off."""
    x = c.operand(0, F32)
    rank, shape = len(x.shape), x.shape

    def times(a: Value, b: Value) -> Value:
        return c.binary("MUL", a, b, shape)

    size = c.unary("ABS", x, "AbsOptions")
    denominator = c.binary("ADD", times(size, c.number(0.3275911, rank)), c.number(1.0, rank), shape)
    t = c.binary("DIV", c.number(1.0, rank), denominator, shape)
    series = c.number(1.061405429, rank)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = c.binary("ADD", times(series, t), c.number(coefficient, rank), shape)
    fall = c.unary("EXP", c.unary("NEG", times(size, size), "NegOptions"), "ExpOptions")
    rest = times(times(series, t), fall)
    return times(c.binary("SUB", c.number(1.0, rank), rest, shape), _sign(c))


_BROADCASTING = {
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _binary("ADD")),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _binary("SUB")),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _binary("MUL")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _binary("DIV")),
    aten.rsub.Scalar: _rsub,
    aten.maximum.default: _binary("MAXIMUM"),
    aten.minimum.default: _binary("MINIMUM"),
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _binary("GREATER")),
    **dict.fromkeys((aten.ge.Scalar, aten.ge.Tensor), _binary("GREATER_EQUAL")),
    **dict.fromkeys((aten.lt.Scalar, aten.lt.Tensor), _binary("LESS")),
    **dict.fromkeys((aten.le.Scalar, aten.le.Tensor), _binary("LESS_EQUAL")),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _binary("EQUAL")),
    **dict.fromkeys((aten.ne.Scalar, aten.ne.Tensor), _binary("NOT_EQUAL")),
    **dict.fromkeys((aten.logical_and.default, aten.bitwise_and.Tensor), _binary("LOGICAL_AND")),
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _binary("LOGICAL_OR")),
    aten.where.self: _where,
}

TABLE: dict[Any, Callable[[Call], Result]] = {
    **_BROADCASTING,
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
    aten.expand.default: _expand,
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
    aten.convolution.default: litert_conv.convolution,
    **dict.fromkeys((aten.mm.default, aten.bmm.default, aten.matmul.default), _matmul),
    aten.addmm.default: _addmm,
    aten._to_copy.default: lambda c: c.cast(c[0], c.out.dtype),
    aten.clone.default: lambda c: c[0],
    aten.relu.default: _unary("RELU"),
    aten.sign.default: _sign,
    aten.exp.default: _unary("EXP", "ExpOptions"),
    aten.log.default: _unary("LOG"),
    aten.sqrt.default: _unary("SQRT"),
    aten.rsqrt.default: _unary("RSQRT"),
    aten.reciprocal.default: _reciprocal,
    aten.neg.default: _unary("NEG", "NegOptions"),
    aten.abs.default: _unary("ABS", "AbsOptions"),
    aten.tanh.default: _unary("TANH"),
    aten.sigmoid.default: _unary("LOGISTIC"),
    aten.floor.default: _unary("FLOOR"),
    aten.sin.default: _unary("SIN"),
    aten.cos.default: _unary("COS"),
    aten.erf.default: _erf,
    **dict.fromkeys(
        (aten.logical_not.default, aten.bitwise_not.default), _unary("LOGICAL_NOT", "LogicalNotOptions")
    ),
    aten.gelu.default: lambda c: c.unary(
        "GELU", c[0], "GeluOptions", approximate=c.named("approximate") == "tanh"
    ),
    aten.pow.Tensor_Scalar: _power,
    aten.clamp_min.default: _clamp(1, None),
    aten.clamp_max.default: _clamp(None, 1),
    aten.clamp.default: _clamp(1, 2),
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _reduce("SUM")),
    **dict.fromkeys((aten.mean.dim, aten.mean.default), _reduce("MEAN")),
    aten.amax.default: _reduce("REDUCE_MAX"),
    aten.amin.default: _reduce("REDUCE_MIN"),
    aten._softmax.default: _softmax("SOFTMAX", "SoftmaxOptions", beta=1.0),
    aten._log_softmax.default: _softmax("LOG_SOFTMAX", "LogSoftmaxOptions"),
    aten.max_pool2d.default: litert_pool.max_pool,
    aten.avg_pool2d.default: litert_pool.avg_pool,
    aten.native_layer_norm.default: _layer_norm,
    aten.scalar_tensor.default: _fill(0),
    aten.full.default: _fill(1),
    aten.full_like.default: _fill(1),
    **dict.fromkeys((aten.ones_like.default, aten.ones.default, aten.new_ones.default), _fill(None, 1.0)),
    **dict.fromkeys((aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default), _fill(None, 0.0)),
}


# whose results may stay as small as they are where all that read them expand them
_LAZY = {
    aten.expand.default,
    aten.full.default,
    aten.full_like.default,
    aten.ones_like.default,
    aten.ones.default,
    aten.new_ones.default,
    aten.zeros_like.default,
    aten.zeros.default,
    aten.new_zeros.default,
}


def translate(
    model: Model, name: str, graph_module: GraphModule, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Add the graph to the file as the signature `name` with inputs and outputs of these names.

    Raises UnsupportedError naming the first operator that the table lacks.
    """
    graph = Graph(model)
    layouts = Layouts(graph)
    values: dict[Node, Any] = {}
    given = []
    ports = iter(inputs)
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            shape, dtype = tuple(node.meta["val"].shape), node.meta["val"].dtype
            given.append(graph.tensor(shape, dtype, next(ports)))
            value = Value(given[-1], shape, plain(len(shape)), dtype)
            if len(shape) in (4, 5) and any(user.op == "call_function" for user in node.users):
                value = layouts.to(value, channels_last(len(shape)))  # once, and not each piece of it
            values[node] = value
        elif node.op == "get_attr":
            array = getattr(graph_module, str(node.target)).detach().numpy()
            tensor_type(node.meta["val"].dtype)
            values[node] = layouts.constant(np.asarray(array), node.meta["val"].dtype)
        elif node.op == "call_function" and node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif node.op == "call_function":
            if node.target not in TABLE:
                raise UnsupportedError(str(node.target))
            values[node] = TABLE[node.target](Call(layouts, node, values))
            _check_shape(node, values[node])
    (results,) = next(n for n in graph_module.graph.nodes if n.op == "output").args
    made: list[int] = []
    for node, port in zip(results, outputs, strict=True):
        value = layouts.plain(values[node])
        if value.tensor in given or value.tensor in made or graph.is_constant(value.tensor):
            # a port is a tensor of its own: a product with 1 leaves every number as it is
            one = layouts.number(1.0, value.dtype, len(value.shape))
            value = layouts.emit("MUL", [value, one], value.shape, dtype=value.dtype, options="MulOptions")
        graph.tensors[value.tensor].name = port.encode()
        made.append(value.tensor)
    model.add(name, graph, given, made)


def _check_shape(node: Node, value: Any) -> None:
    """A wrong shape would end as a file that runs and is wrong."""
    expected = node.meta["val"]
    if isinstance(value, Value) and node.target not in _LAZY and value.shape != tuple(expected.shape):
        raise AssertionError(f"{node.target} came out as {value.shape}, not {tuple(expected.shape)}")
