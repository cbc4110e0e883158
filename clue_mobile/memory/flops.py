"""FLOPs of matrix products and convolutions, 2 per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node


def _convolution_backward(
    grad: Sequence[int], x: Sequence[int], weights: Sequence[int], *rest: Any, **more: object
) -> int:
    """Each gradient that is asked for costs what the forward pass does.

    PyTorch's own formula leaves out the groups (torch 2.14.1): a depthwise weights' gradient counts as a
    dense one, MobileNetV2's step as 98 GFLOP instead of 14.
    """
    transposed, asked = rest[4], rest[-1]
    positions = (x if transposed else grad)[2:]
    return 2 * grad[0] * math.prod(positions) * math.prod(weights) * (asked[0] + asked[1])


# by operator, of the shapes of its arguments, as `FlopCounterMode(custom_mapping=...)` takes them
CORRECTED = {torch.ops.aten.convolution_backward: _convolution_backward}


def node_flops(node: Node) -> int:
    """One node's, by `CORRECTED` or PyTorch's own formulas on the traced shapes; 0 for what is neither."""
    from torch.utils.flop_counter import flop_registry, shape_wrapper

    packet: Any = getattr(node.target, "overloadpacket", None)
    if node.op != "call_function" or packet not in flop_registry:
        return 0
    formula = shape_wrapper(CORRECTED[packet]) if packet in CORRECTED else flop_registry[packet]
    args = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
    return int(formula(*args, **node.kwargs, out_val=node.meta["val"]))


def count_flops(graph: GraphModule) -> int:
    """The whole graph's."""
    return sum(node_flops(node) for node in graph.graph.nodes)
