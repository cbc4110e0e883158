"""Batched products with one matrix repeated."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

from clue_mobile.lowering.graft import Table

aten = torch.ops.aten


def _shape(node: Any) -> list[int]:
    return list(node.meta["val"].shape)


def _broadcast_matrix(node: Node) -> Node | None:
    """The matrix that `node` repeats, where it is an expansion of one, reshaped or not."""
    if node.target is aten.reshape.default and isinstance(node.args[0], Node):
        if _shape(node)[1:] != _shape(node.args[0])[-2:]:
            return None
        node = node.args[0]
    if node.target is not aten.expand.default:
        return None
    source: Any = node.args[0]
    shape = _shape(source)
    return source if shape[-2:] == _shape(node)[-2:] and math.prod(shape[:-2]) == 1 else None


def join(graph_module: GraphModule, table: Table) -> bool:
    """A batched product with one matrix repeated becomes one product of all rows; True where there was one.

    PyTorch writes a linear layer of transposed activations so: there the expansion costs nothing, while
    runtimes make each copy, 1.3 GiB a layer for ViT-B at batch 8.
    """
    graph, found = graph_module.graph, False
    for node in list(graph.nodes):
        if node.target is not aten.bmm.default:
            continue
        rows: Any = node.args[0]
        matrix = _broadcast_matrix(node.args[1])
        if matrix is None:
            continue
        value, flat, shape = node.meta["val"], rows.meta["val"].reshape(-1, _shape(rows)[2]), _shape(node)
        with graph.inserting_before(node):
            if len(_shape(matrix)) > 2:
                weight = graph.call_function(aten.reshape.default, (matrix, _shape(matrix)[-2:]))
                weight.meta["val"] = matrix.meta["val"].reshape(_shape(matrix)[-2:])
                matrix = weight
            joined = graph.call_function(aten.reshape.default, (rows, list(flat.shape)))
            joined.meta["val"] = flat
            product = graph.call_function(aten.mm.default, (joined, matrix))
            product.meta["val"] = value.reshape(-1, shape[2])
            result = graph.call_function(aten.reshape.default, (product, shape))
            result.meta["val"] = value
        node.replace_all_uses_with(result)
        graph.erase_node(node)
        found = True
    return found
