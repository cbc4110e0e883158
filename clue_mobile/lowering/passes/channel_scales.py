"""A factor of each channel of a convolution's gradient goes into its weights, and into its weights' gradient.

Batch norm's backward pass ends in such a factor: on the weights it costs next to nothing, on the activations
it reads and writes all of them once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from clue_mobile.lowering.graft import Table, insert, replace_results

aten = torch.ops.aten


def _factors(node: Any) -> tuple[Node, Node] | None:
    """(gradient, factor of each channel) where `node` is their product."""
    if not isinstance(node, Node) or node.target is not aten.mul.Tensor:
        return None
    shape = node.meta["val"].shape
    for value, factor in (node.args, node.args[::-1]):
        if not isinstance(value, Node) or not isinstance(factor, Node):
            return None
        size = list(factor.meta["val"].shape)
        per_channel = len(size) == len(shape) and size[1] == shape[1] == math.prod(size)
        if per_channel and value.meta["val"].shape == shape != factor.meta["val"].shape:
            return value, factor
    return None


def _scaled(rest: Any) -> Callable[..., Any]:
    """The gradients of x, W and the bias from g, s, x and W. rest: the other arguments."""
    wants_x, wants_weight, wants_bias = rest[-1]

    def backward(g: Tensor, s: Tensor, x: Tensor, w: Tensor) -> Any:
        rows = s.reshape(-1, *([1] * (w.dim() - 1)))
        grad_x, grad_w, grad_b = aten.convolution_backward(g, x, w * rows if wants_x else w, *rest)
        return (
            grad_x if wants_x else None,
            grad_w * rows if wants_weight else None,
            grad_b * s.reshape(-1) if wants_bias else None,
        )

    return backward


def behind_convolutions(graph_module: GraphModule, table: Table) -> bool:
    """convolution_backward(g * s, x, W) as convolution_backward(g, x, W * s), the gradients of W and of the
    bias times s; True where there was one."""
    found = False
    for node in list(graph_module.graph.nodes):
        if node.target is not aten.convolution_backward.default or node.args[7]:  # a transposed one
            continue
        grad: Any = node.args[0]
        pair = _factors(grad)
        if pair is None or any(u.target is not aten.convolution_backward.default for u in grad.users):
            continue
        inputs: Any = [*pair, *node.args[1:3]]
        replace_results(graph_module, node, insert(graph_module, node, _scaled(node.args[3:]), inputs))
        found = True
    return found
