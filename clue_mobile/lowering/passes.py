"""Graph clean-up after tracing: the cost of every exporter grows with the number of nodes, so none is kept for nothing."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten

# copies that mean nothing once nothing is written in place
_COPIES = {
    aten.alias.default,
    aten.detach.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
}
_VIEWS = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}


def _shape(node: Node) -> list[int]:
    return list(node.meta["val"].shape)


def _same(node: Node) -> bool:
    """Whether `node` returns its first argument unchanged."""
    if node.target in _COPIES:
        return True
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or "val" not in source.meta or not isinstance(source.meta["val"], torch.Tensor):
        return False
    if node.target is aten._to_copy.default:
        return source.meta["val"].dtype == node.meta["val"].dtype
    if node.target in _VIEWS or node.target in (aten.expand.default, aten.slice.Tensor):
        return _shape(source) == _shape(node)
    return False


def fold_copies(graph_module: GraphModule) -> None:
    """Remove copies and views that change nothing; a view of a view becomes one view."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten.copy.default and node.args[1].meta["val"].shape == node.meta["val"].shape:
            node.replace_all_uses_with(node.args[1])  # what functionalising made of `running_mean.copy_(new)`
            graph.erase_node(node)
        elif _same(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in _VIEWS:
            node.target = aten.reshape.default  # a folded copy may have made the source contiguous: views would then fail
            source = node.args[0]
            if source.op == "call_function" and source.target in _VIEWS:
                node.args = (source.args[0], *node.args[1:])


def share_equal(graph_module: GraphModule) -> None:
    """Common subexpressions become one node (all operators are pure here)."""
    seen: dict[tuple[object, ...], Node] = {}
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        key = (node.target, repr(node.args), repr(sorted(node.kwargs.items())))
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)
        else:
            seen[key] = node


def values_only_max_pool(graph_module: GraphModule) -> None:
    """`max_pool2d_with_indices(...)[0]` becomes `max_pool2d`: nobody reads the indices, and they cost nodes on every runtime."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is not aten.max_pool2d_with_indices.default:
            continue
        users = list(node.users)
        if any(u.args[1] != 0 for u in users if u.users):
            continue
        with graph.inserting_before(node):
            pooled = graph.call_function(aten.max_pool2d.default, node.args, node.kwargs)
        pooled.meta["val"] = node.meta["val"][0]
        for user in users:
            user.replace_all_uses_with(pooled)
            graph.erase_node(user)
        graph.erase_node(node)


def clean(graph_module: GraphModule) -> GraphModule:
    """Run every pass until the graph stops shrinking."""
    size = -1
    while size != len(graph_module.graph.nodes):
        size = len(graph_module.graph.nodes)
        fold_copies(graph_module)
        share_equal(graph_module)
        graph_module.graph.eliminate_dead_code()
    values_only_max_pool(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module
