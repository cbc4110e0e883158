"""The kernel library's operators as ONNX nodes of the domain "clue".

kernels/src/ort_ops.h has their inputs, outputs and attributes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from exporters.onnx_graph import Call, Result

aten, clue = torch.ops.aten, torch.ops.clue

DOMAIN, VERSION = "clue", 3


def _geometry(c: Call, kernel: Sequence[int], window: int, size: Sequence[int], groups: int) -> list[int]:
    """Kernel, stride, padding, dilation, groups, input size; arguments from `window` on are the window's."""
    stride, padding, dilation = (c[window + i] for i in range(3))
    return [*kernel, *stride, *padding, *dilation, groups, *size]


def _weights(c: Call, index: int) -> tuple[str, list[int]]:
    """The weights, argument `index`, as a value and the attribute `weights`.

    A part of a vector that the program is given is read where it lies: sliced, it would be a copy, alive from
    the forward pass to the backward.
    """
    shaped: Node = c.raw(index)
    part: Any = shaped.args[0] if shaped.target is aten.reshape.default else None
    if isinstance(part, Node) and part.target is aten.slice.Tensor:
        given: Any = part.args
        (vector, axis, start), step = given[:3], given[4:]
        if axis == 0 and not step and vector.op == "placeholder" and vector.meta["val"].dim() == 1:
            return c.name(vector), [start, *c.shape(index)[:2]]
    return c[index], [-1, 0, 0]


def _node(c: Call, op: str, inputs: Sequence[str | None], outputs: int = 1, **attributes: Any) -> Result:
    """A node whose left-out inputs and unread last outputs have no name."""
    names = [name or "" for name in inputs]
    while names and not names[-1]:
        names.pop()
    values = c.out if isinstance(c.out, tuple) else (c.out,)
    known = [(list(value.shape), value.dtype) for value in values[:outputs]]
    made = c.b.add(op, *names, outputs=outputs, known=known, domain=DOMAIN, **attributes)
    if outputs > 1:
        parts: list[Any] = [user.args[1] for user in c.node.users if user.target is operator.getitem]
        read = {int(part) for part in parts}
        for index in set(range(outputs)) - read:
            if index >= _OPTIONAL.get(op, outputs):
                c.b.nodes[-1].output[index] = ""
    return made


_OPTIONAL = {"NormGrad": 3, "LayerNorm": 1}  # the first output that may go unmade


def _after(c: Call, index: int) -> str | None:
    """What must be there before the node runs, its argument `index`, which most nodes do not have."""
    found: str | None = c[index]
    return found


def _conv(outputs: int) -> Callable[[Call], Result]:
    def translate(c: Call) -> Result:
        geometry = _geometry(c, c.shape(1)[2:], 3, c.shape(0)[1:3], c[6])
        w, weights = _weights(c, 1)
        return _node(c, "Conv", [c[0], w, c[2]], outputs, geometry=geometry, weights=weights)

    return translate


def _conv_grad(c: Call) -> Result:
    geometry = _geometry(c, c.shape(2)[2:], 3, c.shape(1)[1:3], c[6])
    w, weights = _weights(c, 2)
    return _node(c, "ConvGrad", [c[0], c[1], w], 2, geometry=geometry, weights=weights)


def _conv_input_grad(c: Call) -> Result:
    geometry = _geometry(c, c.shape(1)[2:], 3, c[2], c[6])
    w, weights = _weights(c, 1)
    return _node(c, "ConvInputGrad", [c[0], w], geometry=geometry, weights=weights)


def _conv_weight_grad(c: Call) -> Result:
    geometry = _geometry(c, c[2], 3, c.shape(1)[1:3], c[6])
    return _node(c, "ConvWeightGrad", [c[0], c[1]], geometry=geometry)


def _max_pool(c: Call) -> Result:
    return _node(c, "MaxPool", [c[0]], geometry=_geometry(c, c[1], 2, c.shape(0)[1:3], 1))


def _max_pool_grad(c: Call) -> Result:
    return _node(c, "MaxPoolGrad", [c[0], c[1]], geometry=_geometry(c, c[2], 3, c.shape(1)[1:3], 1))


def _norm(c: Call) -> Result:
    given = [*(c[i] for i in range(6)), _after(c, 8)]
    return _node(c, "Norm", given, low=float(c[6]), high=float(c[7]))


def _layer_norm(c: Call) -> Result:
    return _node(c, "LayerNorm", [c[0], c[1], c[2], _after(c, 4)], 3, epsilon=float(c[3]))


def _part(c: Call) -> Result:
    return _node(c, "Part", [c[0], _after(c, 3)], start=int(c[1]), stop=int(c[2]))


def _sgd(c: Call) -> Result:
    return _node(c, "Sgd", [c[0], c[1], c[2], c[3], *c[4]], 2, momentum=float(c[5]))


def _norm_grad(c: Call) -> Result:
    limits = {"low": float(c[9]), "high": float(c[10])}
    return _node(c, "NormGrad", [c[i] for i in range(8)], 4, train=int(c[8]), **limits)


def _clamp_grad(c: Call) -> Result:
    low, high = (c.b.scalar(c[i], c.out[0].dtype) for i in (2, 3))
    if math.isinf(c[3]):
        inside = c.b.add("Sub", c.b.add("Max", c[1], low), low)
    else:
        clamped = c.b.add("Clip", c[1], low, high)
        inside = c.b.add("Mul", c.b.add("Sub", clamped, low), c.b.add("Sub", high, clamped))
    return c.b.add("Mul", c[0], c.b.add("Sign", inside))


TABLE: dict[Any, Callable[[Call], Result]] = {
    clue.conv.default: _conv(1),
    clue.conv_stats.default: _conv(3),
    clue.conv_grad.default: _conv_grad,
    clue.conv_input_grad.default: _conv_input_grad,
    clue.conv_weight_grad.default: _conv_weight_grad,
    clue.max_pool.default: _max_pool,
    clue.max_pool_grad.default: _max_pool_grad,
    clue.stats.default: lambda c: _node(c, "Stats", [c[0]], 2),
    clue.norm.default: _norm,
    clue.norm_grad.default: _norm_grad,
    clue.clamp_grad.default: _clamp_grad,
    clue.layer_norm.default: _layer_norm,
    clue.layer_norm_grad.default: lambda c: _node(c, "LayerNormGrad", [c[i] for i in range(5)], 3),
    clue.gelu.default: lambda c: _node(c, "Gelu", [c[0], _after(c, 1)]),
    clue.gelu_grad.default: lambda c: _node(c, "GeluGrad", [c[0], c[1]]),
    clue.image.default: lambda c: _node(c, "Image", [c[0], c[1], c[2], _after(c, 3)]),
    clue.part.default: _part,
    clue.sgd.default: _sgd,
}
