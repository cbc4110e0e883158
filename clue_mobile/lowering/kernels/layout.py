"""Activations stay channels last between the kernels: conversions are moved behind what works in both orders.

A "conversion" here is a permutation that gives [N, H, W, C] its PyTorch order [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from clue_mobile.lowering.windows import per_axis

aten, clue = torch.ops.aten, torch.ops.clue

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
_ALIKE = {
    aten.relu.default,
    aten.clamp.default,
    aten.sign.default,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.rsub.Scalar,
}
_MEAN_AXES = [2, 3]


def put(graph: Graph, target: Any, args: tuple[Any, ...], **kwargs: Any) -> Node:
    """A node of `target` with its (fake) value, where the graph inserts."""
    node = graph.call_function(target, args, kwargs)
    values = torch.fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
    node.meta["val"] = target(*values[0], **values[1])
    return node


def _is(node: Any, order: Sequence[int]) -> bool:
    if not isinstance(node, Node) or node.target is not aten.permute.default:
        return False
    args: Any = node.args
    return list(args[1]) == order


def _source(node: Any) -> Node:
    source: Node = node.args[0]
    return source


def _sunk(graph: Graph, node: Node) -> Node | None:
    """What `node` computes from channels-last sources, converted; None where it cannot."""
    args: tuple[Any, ...] = node.args
    if node.target in _ALIKE:
        inputs = node.all_input_nodes
        if not all(_is(n, TO_FIRST) and n.meta["val"].shape == node.meta["val"].shape for n in inputs):
            return None
        made = put(
            graph, node.target, tuple(_source(a) if isinstance(a, Node) else a for a in args), **node.kwargs
        )
    elif not args or not _is(args[0], TO_FIRST):
        return None
    elif node.target is aten.slice.Tensor:
        dim, *rest = args[1:] if len(args) > 1 else (0,)
        made = put(graph, node.target, (_source(args[0]), TO_FIRST[dim % 4], *rest))
    elif node.target is aten.constant_pad_nd.default:
        pads = [list(args[1][i : i + 2]) for i in range(0, len(args[1]), 2)]  # the last axis first
        pads += [[0, 0]] * (4 - len(pads))
        n, c, h, w = reversed(pads)
        made = put(graph, node.target, (_source(args[0]), [*c, *w, *h, *n], *args[2:]))
    elif node.target is aten.mean.dim and sorted(a % 4 for a in args[1]) == _MEAN_AXES:
        made = put(graph, node.target, (_source(args[0]), [1, 2], *args[2:]), **node.kwargs)
        if made.meta["val"].dim() == 2:
            return made
    elif node.target is aten.max_pool2d.default and not any(args[5:]):  # the sixth: ceil_mode
        given: list[Sequence[int]] = [per_axis(each, 2) for each in args[1:]]
        given += [given[0], [0, 0], [1, 1]][len(given) - 1 :]
        given[1] = given[1] or given[0]
        made = put(graph, clue.max_pool.default, (_source(args[0]), *given[:4]))
    else:
        return None
    return put(graph, aten.permute.default, (made, TO_FIRST))


def sink(graph_module: GraphModule) -> None:
    """Move conversions towards the outputs, and cancel those that meet their inverse."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        with graph.inserting_before(node):
            if _is(node, TO_LAST) and _is(node.args[0], TO_FIRST):
                made: Node | None = _source(node.args[0])
            elif _is(node, TO_LAST) and getattr(node.args[0], "target", None) is aten.expand.default:
                made = _expanded(graph, node)
            else:
                made = _sunk(graph, node)
        if made is not None:
            node.replace_all_uses_with(made)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _expanded(graph: Graph, node: Node) -> Node | None:
    """An expansion is cheaper converted before it."""
    expand: Any = node.args[0]
    small = expand.args[0]
    if small.meta["val"].dim() != 4 or len(expand.users) > 1:
        return None
    moved = put(graph, aten.permute.default, (small, TO_LAST))
    return put(graph, aten.expand.default, (moved, list(node.meta["val"].shape)))
