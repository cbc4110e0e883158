"""A tie between two nodes that costs nothing: the copy that is computed again must not come too early, nor
be taken for the first one."""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule


def after(value: Tensor, *first: Tensor) -> Tensor:
    """`value` itself, once `first` are known. An exporter spells it so that the runtime keeps to that."""
    return value


def remove_ties(graph_module: GraphModule) -> None:
    """Leave `after` out, for a runtime that runs a program in the order in which it is written."""
    for node in list(graph_module.graph.nodes):
        if node.target is after:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    graph_module.recompile()
