"""Max pooling without the indices that nobody reads."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from clue_mobile.lowering.graft import Table

aten = torch.ops.aten

_MAX_POOLS = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}


def values_only(graph_module: GraphModule, table: Table) -> bool:
    """`max_pool2d_with_indices(...)[0]` becomes `max_pool2d`: unread indices cost nodes on every runtime."""
    graph, found = graph_module.graph, False
    for node in list(graph.nodes):
        if node.target not in _MAX_POOLS:
            continue
        users = list(node.users)
        if any(u.args[1] != 0 for u in users if u.users):
            continue
        with graph.inserting_before(node):
            pooled = graph.call_function(_MAX_POOLS[node.target], node.args, node.kwargs)
        pooled.meta["val"] = node.meta["val"][0]
        for user in users:
            user.replace_all_uses_with(pooled)
            graph.erase_node(user)
        graph.erase_node(node)
        found = True
    return found
