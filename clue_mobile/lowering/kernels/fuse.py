"""What a kernel does in one pass becomes one operator.

Statistics behind a convolution; residual and ReLU behind a norm, and their backward in front of the norm's.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from clue_mobile.lowering.kernels.layout import put, sink

aten, clue = torch.ops.aten, torch.ops.clue


def fuse(graph_module: GraphModule) -> GraphModule:
    """Run every pass of this folder over a lowered graph, in place."""
    sink(graph_module)
    for each in (statistics, residual, activation, masked, summed):
        each(graph_module)
        graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _nodes(graph_module: GraphModule, target: Any) -> list[Node]:
    return [node for node in graph_module.graph.nodes if node.target is target]


def _only_user(node: Node, target: Any) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target is target else None


def _replace_parts(graph_module: GraphModule, old: Node, new: Node, shift: int = 0) -> None:
    """Readers of the parts of `old` read those of `new`, `shift` further on."""
    graph = graph_module.graph
    for part in list(old.users):
        assert part.target is operator.getitem
        args: Any = part.args
        part.args = (new, int(args[1]) + shift)
    graph.erase_node(old)


def statistics(graph_module: GraphModule) -> None:
    """stats(conv(x)) -> conv_stats(x): the convolution's result is still in the cache."""
    graph = graph_module.graph
    for conv in _nodes(graph_module, clue.conv.default):
        stats = [user for user in conv.users if user.target is clue.stats.default]
        if not stats:
            continue
        with graph.inserting_before(conv):
            both = put(graph, clue.conv_stats.default, conv.args)
            y = graph.call_function(operator.getitem, (both, 0))
            y.meta["val"] = conv.meta["val"]
        for each in stats:
            _replace_parts(graph_module, each, both, 1)
        conv.replace_all_uses_with(y)
        graph.erase_node(conv)


def residual(graph_module: GraphModule) -> None:
    """norm(x) + r -> norm(x, r)."""
    graph = graph_module.graph
    for norm in _nodes(graph_module, clue.norm.default):
        add = _only_user(norm, aten.add.Tensor)
        if add is None or add.kwargs.get("alpha", 1) != 1 or len(add.all_input_nodes) != 2:
            continue
        (other,) = (n for n in add.all_input_nodes if n is not norm)
        if other.meta["val"].shape != norm.meta["val"].shape or norm.args[6]:
            continue
        with graph.inserting_before(add):
            made = put(graph, clue.norm.default, (*norm.args[:5], other, False))
        add.replace_all_uses_with(made)
        graph.erase_node(add)
        graph.erase_node(norm)


def activation(graph_module: GraphModule) -> None:
    """relu(norm(x)) -> norm(x, relu)."""
    graph = graph_module.graph
    for norm in _nodes(graph_module, clue.norm.default):
        relu = _only_user(norm, aten.relu.default)
        if relu is not None:
            with graph.inserting_before(relu):
                made = put(graph, clue.norm.default, (*norm.args[:6], True))
            relu.replace_all_uses_with(made)
            graph.erase_node(relu)
            graph.erase_node(norm)


def masked(graph_module: GraphModule) -> None:
    """norm_grad(relu_grad(g, out)) -> norm_grad(g, out).

    Other readers of the masked gradient take its fourth part.
    """
    graph = graph_module.graph
    place = {node: number for number, node in enumerate(graph.nodes)}
    for mask in _nodes(graph_module, clue.relu_grad.default):
        readers = [u for u in mask.users if u.target is clue.norm_grad.default and u.args[0] is mask]
        # where the mask stood, so that it is in front of every reader
        early = [
            u for u in readers if all(place[n] < place[mask] for n in u.all_input_nodes if n is not mask)
        ]
        if not early:
            continue
        grad, out = mask.args
        reader = early[0]
        with graph.inserting_before(mask):
            made = put(graph, clue.norm_grad.default, (grad, *reader.args[1:5], out, None, reader.args[7]))
            kept = graph.call_function(operator.getitem, (made, 3))
            kept.meta["val"] = mask.meta["val"]
        place[made] = place[kept] = place[mask]
        _replace_parts(graph_module, reader, made)
        mask.replace_all_uses_with(kept)
        graph.erase_node(mask)


def summed(graph_module: GraphModule) -> None:
    """norm_grad(a + b) -> norm_grad(a, more=b) where nothing else reads the sum."""
    graph = graph_module.graph
    for grad in _nodes(graph_module, clue.norm_grad.default):
        add: Any = grad.args[0]
        if (
            add.target is not aten.add.Tensor
            or len(add.users) > 1
            or add.kwargs.get("alpha", 1) != 1
            or len(add.all_input_nodes) != 2
            or any(n.meta["val"].shape != add.meta["val"].shape for n in add.all_input_nodes)
        ):
            continue
        left, right = add.args
        grad.args = (left, *grad.args[1:6], right, grad.args[7])
        graph.erase_node(add)
