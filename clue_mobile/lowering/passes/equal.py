"""Common subexpressions: what is worked out twice is worked out once."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node


def share(graph_module: GraphModule) -> None:
    """Common subexpressions, and constants of the same content, become one node (all operators are pure
    here)."""
    seen: dict[tuple[object, ...], Node] = {}
    graph = graph_module.graph
    for node in list(graph.nodes):
        key: tuple[object, ...]
        if node.op == "get_attr":
            value = getattr(graph_module, str(node.target))
            if not isinstance(value, torch.Tensor):
                continue
            key = (value.dtype, tuple(value.shape), value.numpy().tobytes())
        elif node.op == "call_function":
            key = (node.target, repr(node.args), repr(sorted(node.kwargs.items())))
        else:
            continue
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)
        else:
            seen[key] = node
