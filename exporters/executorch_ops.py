"""ATen operators of lowered graphs as nodes of the XNNPACK delegate: one entry of `TABLE` each.

Conditions are numbers here, 1 where they hold and else 0: the delegate has no booleans. An operator, or a use
of it, that raises UnsupportedError runs on ExecuTorch's portable kernels, which are slow.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from torch.fx import Node

from exporters import executorch_shapes
from exporters.executorch_call import Call, Table, Translation
from exporters.executorch_graph import Builder, UnsupportedError

aten = torch.ops.aten
_LARGE = 3e38  # times any normal number is at least 1


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
    return c.b.clamp(
        c[0], -math.inf if low is None else float(low), math.inf if high is None else float(high)
    )


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


def _is_finite(value: Any) -> bool:
    """Whether a number or constant is; a value that is worked out counts as finite."""
    if not isinstance(value, Node):
        return math.isfinite(float(value))
    if value.op != "get_attr":
        return True
    constant: torch.Tensor = getattr(value.graph.owning_module, str(value.target))
    return bool(torch.isfinite(constant).all())


def _where(c: Call) -> int:
    """Both branches are worked out: a value that is not finite spoils the result even where it is not
    taken."""
    if not (_is_finite(c.raw(1)) and _is_finite(c.raw(2))):
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


def _simple() -> Table:
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


TABLE: Table = {
    **executorch_shapes.TABLE,
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
    **dict.fromkeys((aten.logical_not.default, aten.bitwise_not.default), lambda c: _not(c.b, c[0])),
    **dict.fromkeys((aten.logical_and.default, aten.bitwise_and.Tensor), lambda c: c.b.multiply(c[0], c[1])),
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _binary(schema.XNNMaximum)),
    aten._to_copy.default: _to_copy,
    aten.pow.Tensor_Scalar: _power,
    aten.reciprocal.default: _reciprocal,
    aten.gelu.default: _gelu,
    aten.leaky_relu.default: lambda c: c.b.unary(schema.XNNLeakyReLU, c[0], negative_slope=float(c[1])),
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.amax.default: _largest,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
}
