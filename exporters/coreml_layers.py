"""Products, convolutions, pooling and normalisation as operators of Core ML's ML programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from exporters.coreml_graph import MOST_AXES, Call, UnsupportedError, Var, size_of

aten = torch.ops.aten

_PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default}

# what MIL's rsqrt adds to its argument: the smallest normal number, which changes no other
TINY = {"fp32": np.finfo(np.float32).tiny, "fp16": np.float16(6e-8)}


def convolution(c: Call) -> Var:
    """A convolution as it is, with its bias as an operator of its own."""
    stride, padding, dilation, transposed, _, groups = (c[i] for i in range(3, 9))
    axes = len(c.shape(0)) - 2
    if transposed or any(d != 1 for d in dilation):  # coreml_forms spells both otherwise
        raise UnsupportedError("a transposed or dilated convolution with weights that are no constants")
    stride, padding = (v * axes if len(v) == 1 else v for v in (stride, padding))
    y = c.b.add(
        "conv",
        x=c.var(0),
        weight=c.var(1),
        strides=stride,
        pad_type="custom",
        pad=[p for p in padding for _ in range(2)],
        dilations=[1] * axes,
        groups=groups,
    )
    if c[2] is None:
        return y
    # the operator takes no bias beside weights that are no constants
    return c.b.add("add", x=y, y=c.b.reshape(c.var(2), [1, *c.shape(2), *([1] * axes)]))


def turned(node: Any) -> Node | None:
    """The matrices whose transpose `node` is, where only products read it: they have a flag for that."""
    if not isinstance(node, Node) or node.target is not aten.permute.default:
        return None
    order = list(range(len(node.meta["val"].shape)))
    order[-2:] = order[:-3:-1]
    swapped = len(order) <= MOST_AXES and node.args[1] == order
    source: Any = node.args[0]
    return source if swapped and all(_multiplies(user, node) for user in node.users) else None


def _multiplies(user: Node, node: Node) -> bool:
    """Whether `user` is a product with `node` as a factor; the first argument of addmm is a term."""
    return user.target in _PRODUCTS and not (user.target is aten.addmm.default and user.args[0] is node)


def product(c: Call, x: int, y: int) -> Var:
    """The matrices of argument x times those of argument y."""
    c.few_axes(x, y)
    sources = {key: (index, turned(c.raw(index))) for key, index in (("x", x), ("y", y))}
    given = {key: c.of(source) if source else c.var(index) for key, (index, source) in sources.items()}
    flags = {f"transpose_{key}": source is not None for key, (_, source) in sources.items()}
    return c.b.add("matmul", **given, **flags)


def addmm(c: Call) -> Var:
    """A product with a term, either with a factor."""
    result, term = product(c, 1, 2), c.var(0)
    if c[4] != 1:
        result = c.b.add("mul", x=result, y=c.b.number(c[4], c.kind))
    if c[3] != 1:
        term = c.b.add("mul", x=term, y=c.b.number(c[3], c.kind))
    return c.b.add("add", x=result, y=term)


def _window(c: Call) -> tuple[list[int], list[int], list[int]]:
    """kernel, stride and padding of a pooling operator, one number an axis."""
    axes = 3 if "3d" in str(c.node.target) else 2
    if len(c.shape(0)) != axes + 2:
        raise UnsupportedError(f"{c.node.target} of a single image")
    kernel, stride, padding = (v * axes if len(v) == 1 else v for v in (c[1], c[2] or c[1], c[3]))
    return kernel, stride, padding


def max_pool(c: Call) -> Var:
    """Padded to just where PyTorch's windows end, whichever way it rounds their number."""
    kernel, stride, padding = _window(c)
    if any(d != 1 for d in c[4]):
        raise UnsupportedError("max pooling with dilation")
    axes = zip(c.out.shape[2:], c.shape(0)[2:], kernel, stride, padding, strict=True)
    pads = [n for o, size, k, s, p in axes for n in (p, max((o - 1) * s + k - size - p, 0))]
    y = c.b.add(
        "max_pool",
        x=c.var(0),
        kernel_sizes=kernel,
        strides=stride,
        pad_type="custom",
        pad=pads,
        ceil_mode=False,
    )
    if list(y.shape) != list(c.out.shape):
        raise UnsupportedError(f"max pooling of {c.shape(0)} by {kernel}, stride {stride}, padding {padding}")
    return y


def avg_pool(c: Call) -> Var:
    """As it is, where rounding up the number of windows adds none."""
    kernel, stride, padding = _window(c)
    if c[6] is not None:
        raise UnsupportedError("average pooling with divisor_override")
    y = c.b.add(
        "avg_pool",
        x=c.var(0),
        kernel_sizes=kernel,
        strides=stride,
        pad_type="custom",
        pad=[p for p in padding for _ in range(2)],
        exclude_padding_from_average=not c[5],
        ceil_mode=False,
    )
    if list(y.shape) != list(c.out.shape):
        raise UnsupportedError(f"average pooling with ceil_mode of {c.shape(0)} by {kernel}, stride {stride}")
    return y


def _normalised(c: Call, x: Var, axes: list[int], eps: float) -> tuple[Var, Var, Var]:
    """(x - mean) * scale, mean and scale = 1 / sqrt(variance + eps) over the axes, which stay as 1."""
    add = c.b.add
    mean = add("reduce_mean", x=x, axes=axes, keep_dims=True)
    centred = add("sub", x=x, y=mean)
    variance = add("reduce_mean", x=add("mul", x=centred, y=centred), axes=axes, keep_dims=True)
    scale = add("rsqrt", x=add("add", x=variance, y=c.b.number(eps, c.kind)), epsilon=TINY[c.kind])
    return add("mul", x=centred, y=scale), mean, scale


def variance(c: Call) -> Var | tuple[Var, Var]:
    """var, and var_mean, with any correction."""
    c.few_axes(0)
    x, add, shape = c.var(0), c.b.add, c.shape(0)
    axes = [axis % len(shape) for axis in c[1] or range(len(shape))]
    mean = add("reduce_mean", x=x, axes=axes, keep_dims=True)
    centred = add("sub", x=x, y=mean)
    total = add("reduce_sum", x=add("mul", x=centred, y=centred), axes=axes, keep_dims=True)
    correction = 1 if c.named("correction") is None else c.named("correction")
    count = math.prod(shape[axis] for axis in axes) - correction
    result = c.b.reshape(add("mul", x=total, y=c.b.number(1 / count, c.kind)), c.out.shape)
    several = isinstance(c.node.meta["val"], (tuple, list))
    return (result, c.b.reshape(mean, c.out.shape)) if several else result


def layer_norm(c: Call) -> tuple[Var, Var, Var]:
    """Spelled out, as Core ML's own wants constant weights."""
    c.few_axes(0)
    add, rank = c.b.add, len(c.shape(0))
    y, mean, scale = _normalised(c, c.var(0), list(range(rank - len(c[1]), rank)), c[4])
    if c[2] is not None:
        y = add("mul", x=y, y=c.var(2))
    return (add("add", x=y, y=c.var(3)) if c[3] is not None else y), mean, scale


def group_norm(c: Call) -> tuple[Var, Var, Var]:
    """Spelled out: each group of channels of an image is a row."""
    c.few_axes(0)
    size, groups, add = size_of(c.out.shape), c[6], c.b.add
    rows = c.b.reshape(c.var(0), [c[3], groups, c[4] // groups * c[5]])
    y, mean, scale = _normalised(c, rows, [2], c[7])
    y = c.b.reshape(y, size)
    channel = [1, c[4], *([1] * (len(size) - 2))]
    if c[1] is not None:
        y = add("mul", x=y, y=c.b.reshape(c.var(1), channel))
    if c[2] is not None:
        y = add("add", x=y, y=c.b.reshape(c.var(2), channel))
    return y, c.b.reshape(mean, [c[3], groups]), c.b.reshape(scale, [c[3], groups])


def softmax(c: Call) -> Var:
    """Along one axis."""
    c.few_axes(0)
    return c.b.add("softmax", x=c.var(0), axis=c[1] % max(len(c.shape(0)), 1))


def log_softmax(c: Call) -> Var:
    """Spelled out: it is not said that Core ML's own logarithm of a sum of exponentials is a stable one."""
    c.few_axes(0)
    axes, add = [c[1] % max(len(c.shape(0)), 1)], c.b.add
    x = c.var(0)
    z = add("sub", x=x, y=add("reduce_max", x=x, axes=axes, keep_dims=True))
    total = add("reduce_sum", x=add("exp", x=z), axes=axes, keep_dims=True)
    return add("sub", x=z, y=add("log", x=total))
