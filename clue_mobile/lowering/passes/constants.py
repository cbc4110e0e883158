"""Constant folding: small values that depend on no input are worked out when the program is made."""

from __future__ import annotations

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.fx.node import map_arg

aten = torch.ops.aten

_FILLS = {
    aten.ones_like.default: 1,
    aten.zeros_like.default: 0,
    aten.new_zeros.default: 0,
    aten.new_ones.default: 1,
}
_MAX_CONSTANT = 4096  # elements; anything larger is cheaper to make on the device than to store
_MAX_INDEX = 1 << 18  # of whole numbers: an index has to be known where it is used


def fold(graph_module: GraphModule) -> None:
    """Work out small values that depend on no input: masks, positions, a backward pass's first gradient."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if (
            not isinstance(node.target, OpOverload)
            or not isinstance(value, torch.Tensor)
            or value.numel() > (_MAX_INDEX if value.dtype == torch.int64 else _MAX_CONSTANT)
        ):
            continue
        if node.target in _FILLS:
            constant = torch.full(value.shape, _FILLS[node.target], dtype=value.dtype)
        elif torch.Tag.nondeterministic_seeded in node.target.tags or any(
            n.op != "get_attr" for n in node.all_input_nodes
        ):
            continue
        else:
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: getattr(graph_module, str(n.target)))
            constant = node.target(*args, **kwargs)
        name = f"_folded_{node.name}"
        graph_module.register_buffer(name, constant.clone(memory_format=torch.contiguous_format))
        with graph.inserting_before(node):
            folded = graph.get_attr(name)
        folded.meta["val"] = value
        node.replace_all_uses_with(folded)
        graph.erase_node(node)
