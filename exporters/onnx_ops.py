"""ATen operators of lowered graphs as ONNX operators: one entry of `TABLE` each.

PyTorch's own exporter knows more operators, but spends 60 s on a step of 1,600 nodes, most of it on
decomposing once more what is lowered already, and leaves casts behind; this table takes one second.
`exporters.onnx` uses PyTorch's exporter for a program with an operator that is missing here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.fx import GraphModule, Node

aten = torch.ops.aten
Result = Any  # the name of a value, or a tuple of names

_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


class UnsupportedError(Exception):
    """An operator, or a use of it, that this table lacks."""


class Builder:
    """Collects nodes and constants; equal constants are stored once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Any, onnx.TensorProto] = {}
        self._count = 0

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        """The name of an initializer with this content."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"c{len(self.constants)}")
        return self.constants[key].name

    def ints(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self.constant(np.asarray(values, np.int64).reshape(-1))

    def scalar(self, value: float, dtype: torch.dtype) -> str:
        """A constant of rank 0."""
        return self.constant(torch.tensor(value, dtype=dtype).numpy())

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Result:
        """Append a node; returns its output's name, or a tuple of names."""
        names = [f"v{self._count + i}" for i in range(outputs)]
        self._count += outputs
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else tuple(names)


class Call:
    """One ATen node while it is translated: positional arguments, with values by name, and the shapes behind
    them."""

    def __init__(self, builder: Builder, node: Node, names: dict[Node, Result]) -> None:
        self.b, self.node, self._names = builder, node, names
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = {**{a.name: v for a, v in zip(schema, node.args, strict=False)}, **node.kwargs}
        self._args: list[Any] = [
            given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema
        ]

    def __getitem__(self, index: int) -> Any:
        value = self._args[index]
        if isinstance(value, Node):
            return self._names[value]
        if isinstance(value, (list, tuple)) and any(isinstance(v, Node) for v in value):
            return [self._names[v] for v in value]
        return list(value) if isinstance(value, (list, tuple)) else value

    def shape(self, index: int) -> list[int]:
        """The shape of the tensor argument `index`."""
        return list(self._args[index].meta["val"].shape)

    @property
    def out(self) -> Any:
        """The (fake) result."""
        return self.node.meta["val"]

    def operand(self, index: int) -> str:
        """A tensor argument, or a number as a constant of the other operand's type."""
        value = self[index]
        if isinstance(value, str):
            return value
        return self.b.scalar(value, next(a for a in self._args if isinstance(a, Node)).meta["val"].dtype)


def _unary(op: str) -> Callable[[Call], Result]:
    return lambda c: c.b.add(op, c[0])


def _binary(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        left, right = c.operand(0), c.operand(1)
        if len(c._args) > 2 and c[2] not in (None, 1):  # add and sub carry a factor `alpha`
            right = c.b.add("Mul", right, c.b.scalar(c[2], c.out.dtype))
        return c.b.add(op, left, right)

    return translate


def _reduce(op: str) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        axes = c[1] if len(c._args) > 2 and c[1] else list(range(len(c.shape(0))))
        if not axes:
            return c.b.add(
                "Identity", c[0]
            )  # rank 0: an empty axis list would mean all axes, which is the same here
        keep = int(bool(c[2])) if len(c._args) > 3 else 0
        return c.b.add(op, c[0], c.b.ints(axes), keepdims=keep)

    return translate


def _reshape(c: Call) -> Result:
    return c.b.add("Reshape", c[0], c.b.ints(c.out.shape))


def _transpose(c: Call) -> Result:
    order = list(range(len(c.shape(0))))
    a, b = (c[1], c[2]) if len(c._args) > 1 else (0, len(order) - 1)
    order[a], order[b] = order[b], order[a]
    return c.b.add("Transpose", c[0], perm=order)


def _slice(c: Call) -> Result:
    dim = c[1] % len(c.shape(0))
    size = c.shape(0)[dim]
    start, end = c[2] or 0, size if c[3] is None else min(c[3], size)
    return c.b.add("Slice", c[0], c.b.ints([start]), c.b.ints([end]), c.b.ints([dim]), c.b.ints([c[4]]))


def _select(c: Call) -> Result:
    return c.b.add("Gather", c[0], c.b.constant(np.asarray(c[2], np.int64)), axis=c[1])


def _pad(c: Call) -> Result:
    rank, pad = len(c.shape(0)), c[1]
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    return c.b.add("Pad", c[0], c.b.ints([*before, *after]), c.b.scalar(c[2], c.out.dtype))


def _convolution(c: Call) -> Result:
    inputs = [c[0], c[1], *([c[2]] if c[2] is not None else [])]
    stride, padding, dilation, transposed, output_padding, groups = (c[i] for i in range(3, 9))
    axes = len(c.shape(0)) - 2
    stride, padding, dilation, output_padding = (
        v * axes if len(v) == 1 else v for v in (stride, padding, dilation, output_padding)
    )
    common = {
        "strides": stride,
        "pads": [*padding, *padding],
        "dilations": dilation,
        "group": groups,
        "kernel_shape": c.shape(1)[2:],
    }
    if transposed:
        return c.b.add("ConvTranspose", *inputs, output_padding=output_padding, **common)
    return c.b.add("Conv", *inputs, **common)


def _max_pool(c: Call) -> Result:
    kernel, stride, padding, dilation, ceil = (c[i] for i in range(1, 6))
    kernel, padding, dilation = (v * 2 if len(v) == 1 else v for v in (kernel, padding, dilation))
    stride = (stride * 2 if len(stride) == 1 else stride) or kernel
    return c.b.add(
        "MaxPool",
        c[0],
        kernel_shape=kernel,
        strides=stride,
        pads=[*padding, *padding],
        dilations=dilation,
        ceil_mode=int(ceil),
    )


def _avg_pool(c: Call) -> Result:
    kernel, stride, padding, ceil, include_pad, divisor = (c[i] for i in range(1, 7))
    if divisor is not None or ceil:
        raise UnsupportedError("avg_pool2d with divisor_override or ceil_mode")
    kernel, padding = (v * 2 if len(v) == 1 else v for v in (kernel, padding))
    stride = (stride * 2 if len(stride) == 1 else stride) or kernel
    return c.b.add(
        "AveragePool",
        c[0],
        kernel_shape=kernel,
        strides=stride,
        pads=[*padding, *padding],
        count_include_pad=int(include_pad),
    )


def _addmm(c: Call) -> Result:
    return c.b.add("Gemm", c[1], c[2], c[0], beta=float(c[3]), alpha=float(c[4]))


def _layer_norm(c: Call) -> Result:
    width = len(c[1])
    weight = c[2] or c.b.constant(np.ones(c[1], np.float32))
    return c.b.add(
        "LayerNormalization",
        c[0],
        weight,
        *([c[3]] if c[3] else []),
        outputs=3,
        axis=-width,
        epsilon=float(c[4]),
    )


def _clamp(low: int | None, high: int | None) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        value = c[0]
        for op, index in (("Max", low), ("Min", high)):
            if index is not None and c[index] is not None:
                value = c.b.add(op, value, c.operand(index))
        return value

    return translate


def _fill(value_index: int | None, value: float = 0.0) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        number = c[value_index] if value_index is not None else value
        constant = c.b.scalar(number, c.out.dtype)
        return c.b.add("Expand", constant, c.b.ints(c.out.shape)) if c.out.dim() else constant

    return translate


def _power(c: Call) -> Result:
    return c.b.add("Mul", c[0], c[0]) if c[1] == 2 else c.b.add("Pow", c[0], c.operand(1))


def _unbind(c: Call) -> Result:
    dim = c[1] % len(c.shape(0))
    return tuple(
        c.b.add("Gather", c[0], c.b.constant(np.asarray(i, np.int64)), axis=dim)
        for i in range(c.shape(0)[dim])
    )


TABLE: dict[Any, Callable[[Call], Result]] = {
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
    aten.unbind.int: _unbind,
    aten.expand.default: lambda c: c.b.add("Expand", c[0], c.b.ints(c.out.shape)),
    aten.cat.default: lambda c: c.b.add("Concat", *c[0], axis=c[1]),
    aten.constant_pad_nd.default: _pad,
    aten.convolution.default: _convolution,
    **dict.fromkeys((aten.mm.default, aten.bmm.default, aten.matmul.default), _binary("MatMul")),
    aten.addmm.default: _addmm,
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _binary("Add")),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _binary("Sub")),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _binary("Mul")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _binary("Div")),
    aten.rsub.Scalar: lambda c: c.b.add("Sub", c.operand(1), c[0]),
    aten.maximum.default: _binary("Max"),
    aten.minimum.default: _binary("Min"),
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _binary("Greater")),
    **dict.fromkeys((aten.ge.Scalar, aten.ge.Tensor), _binary("GreaterOrEqual")),
    **dict.fromkeys((aten.lt.Scalar, aten.lt.Tensor), _binary("Less")),
    **dict.fromkeys((aten.le.Scalar, aten.le.Tensor), _binary("LessOrEqual")),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _binary("Equal")),
    aten.where.self: lambda c: c.b.add("Where", c[0], c[1], c[2]),
    aten._to_copy.default: lambda c: c.b.add("Cast", c[0], to=_TYPES[c.out.dtype]),
    aten.relu.default: _unary("Relu"),
    aten.sign.default: _unary("Sign"),
    aten.exp.default: _unary("Exp"),
    aten.log.default: _unary("Log"),
    aten.sqrt.default: _unary("Sqrt"),
    aten.rsqrt.default: lambda c: c.b.add("Reciprocal", c.b.add("Sqrt", c[0])),
    aten.reciprocal.default: _unary("Reciprocal"),
    aten.neg.default: _unary("Neg"),
    aten.abs.default: _unary("Abs"),
    aten.tanh.default: _unary("Tanh"),
    aten.sigmoid.default: _unary("Sigmoid"),
    aten.erf.default: _unary("Erf"),
    aten.gelu.default: lambda c: c.b.add("Gelu", c[0], approximate=c[1]),
    aten.pow.Tensor_Scalar: _power,
    aten.clamp_min.default: _clamp(1, None),
    aten.clamp.default: _clamp(1, 2),
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _reduce("ReduceSum")),
    **dict.fromkeys((aten.mean.dim, aten.mean.default), _reduce("ReduceMean")),
    aten.amax.default: _reduce("ReduceMax"),
    aten._softmax.default: lambda c: c.b.add("Softmax", c[0], axis=c[1]),
    aten._log_softmax.default: lambda c: c.b.add("LogSoftmax", c[0], axis=c[1]),
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.native_layer_norm.default: _layer_norm,
    aten.scalar_tensor.default: _fill(0),
    aten.full.default: _fill(1),
    aten.full_like.default: _fill(1),
    **dict.fromkeys((aten.ones_like.default, aten.ones.default), _fill(None, 1.0)),
    **dict.fromkeys((aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default), _fill(None, 0.0)),
}


def translate(
    graph: GraphModule, inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    """A ModelProto with these input and output names.

    Raises UnsupportedError naming the first operator that the table lacks.
    """
    builder = Builder()
    names: dict[Node, Result] = {}
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    names.update(zip(placeholders, inputs, strict=True))
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            names[node] = builder.constant(getattr(graph, str(node.target)).detach().numpy())
        elif node.op == "call_function" and node.target is operator.getitem:
            names[node] = names[node.args[0]][node.args[1]]
        elif node.op == "call_function":
            if node.target not in TABLE:
                raise UnsupportedError(str(node.target))
            names[node] = TABLE[node.target](Call(builder, node, names))
    (results,) = next(n for n in graph.graph.nodes if n.op == "output").args
    for result, name in zip(
        results, outputs, strict=True
    ):  # an Identity: an input may be an output, or one value two outputs
        builder.nodes.append(helper.make_node("Identity", [names[result]], [name]))
    return helper.make_model(
        helper.make_graph(
            builder.nodes,
            "program",
            [_info(name, node) for name, node in zip(inputs, placeholders, strict=True)],
            [_info(name, node) for name, node in zip(outputs, results, strict=True)],
            list(builder.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=9,
    )


def _info(name: str, node: Node) -> onnx.ValueInfoProto:
    value = node.meta["val"]
    return helper.make_tensor_value_info(name, _TYPES[value.dtype], list(value.shape))
