"""Sums of padded pieces become one concatenation.

What was cut into pieces, as attention cuts its query, key and value out of one product, gets its gradient as
a sum: each piece's own among zeros, three times as many values as there are to add.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

from clue_mobile.lowering.graft import Table

aten = torch.ops.aten


def of_pads(graph_module: GraphModule, table: Table) -> bool:
    """pad(a) + pad(b) + ... as cat([a, b, ...]), where they lie side by side along one axis and fill it.

    A reordering of pieces that are 1 thick is left to the concatenation: it joins them along the new axis.
    True where there was one.
    """
    graph, found = graph_module.graph, False
    for node in reversed(list(graph.nodes)):  # the last sum of a chain first
        pieces = _pieces(node) if node.target is aten.add.Tensor else None
        if pieces is None:
            continue
        axis, parts = pieces
        parts.sort(key=lambda part: part[0])
        ends = [start + value.meta["val"].shape[axis] for start, value in parts]
        if [start for start, _ in parts] != [0, *ends[:-1]] or ends[-1] != node.meta["val"].shape[axis]:
            continue
        with graph.inserting_before(node):
            joined = graph.call_function(aten.cat.default, ([value for _, value in parts], axis))
        joined.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(joined)
        graph.eliminate_dead_code()
        _along_the_new_axis(graph_module, joined, axis)
        found = True
    return found


def _pieces(node: Any) -> tuple[int, list[tuple[int, Node]]] | None:
    """The axis along which a sum's terms lie, and of each where it begins and what it is; None where a term
    is anything else."""
    if not isinstance(node, Node):
        return None
    if node.target is aten.constant_pad_nd.default:
        source: Any = node.args[0]
        pads: Any = node.args[1]
        value = node.args[2] if len(node.args) > 2 else 0
        padded = [i // 2 for i, pad in enumerate(pads) if pad]
        if value != 0 or not padded or len(set(padded)) > 1 or min(pads) < 0:
            return None
        return node.meta["val"].dim() - 1 - padded[0], [(pads[2 * padded[0]], source)]
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    sides = [_pieces(side) for side in node.args]
    if any(side is None for side in sides) or any(len(side.users) > 1 for side in node.all_input_nodes):
        return None
    (axis, left), (other, right) = sides  # type: ignore[misc]
    return (axis, left + right) if axis == other else None


def _along_the_new_axis(graph_module: GraphModule, joined: Node, axis: int) -> None:
    """permute(reshape(cat)) of pieces 1 thick as a cat of reshaped pieces."""
    graph, pieces = graph_module.graph, list(joined.args[0])  # type: ignore[arg-type]
    shaped: Any = joined
    while len(shaped.users) == 1 and next(iter(shaped.users)).target is aten.reshape.default:
        (shaped,) = shaped.users
    (moved,) = shaped.users if len(shaped.users) == 1 else (shaped,)
    if moved.target is not aten.permute.default:
        return
    shape, order = list(shaped.meta["val"].shape), [i % len(moved.args[1]) for i in moved.args[1]]
    before = math.prod(joined.meta["val"].shape[:axis])
    at = next((i for i, n in enumerate(shape) if n == len(pieces) and math.prod(shape[:i]) == before), None)
    thick = [i for i in order if i != at and shape[i] > 1]
    if at is None or any(p.meta["val"].shape[axis] != 1 for p in pieces) or thick != sorted(thick):
        return
    each = [1 if i == at else shape[i] for i in order]
    with graph.inserting_before(moved):
        reshaped = []
        for piece in pieces:
            part = graph.call_function(aten.reshape.default, (piece, each))
            part.meta["val"] = piece.meta["val"].reshape(each)
            reshaped.append(part)
        made = graph.call_function(aten.cat.default, (reshaped, order.index(at)))
    made.meta["val"] = moved.meta["val"].contiguous()
    moved.replace_all_uses_with(made)
    graph.eliminate_dead_code()
