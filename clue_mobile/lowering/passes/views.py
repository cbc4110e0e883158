"""Views in one spelling, and what changes nothing taken out.

All shapes are static and all operators pure here: whatever changes a shape alone becomes `reshape`, whatever
changes the order of axes `permute`, and a chain of either one node.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten

# copies that mean nothing once nothing is written in place
_COPIES = {
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,  # of a constant made while tracing
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
}
_RESHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}
_PERMUTES = {aten.t.default, aten.transpose.int, aten.permute.default}
_STRIDED = {
    aten.as_strided.default: 0,
    aten.as_strided_scatter.default: 1,
}  # and which argument has the values
_FACTORS = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar}
# what does nothing where it leaves shape and dtype as they are
_SHAPERS = {
    aten.reshape.default,
    aten.expand.default,
    aten.slice.Tensor,
    aten.constant_pad_nd.default,
    aten._to_copy.default,
}


def _shape(node: Any) -> list[int]:
    return list(node.meta["val"].shape)


def _dtype(node: Any) -> torch.dtype:
    return node.meta["val"].dtype


def _order(node: Node) -> list[int]:
    """The order of axes that a permuting node gives its argument."""
    order = list(range(len(_shape(node))))
    args: Any = node.args
    if node.target is aten.permute.default:
        return [order[axis] for axis in args[1]]
    if len(order) > 1:
        first, second = (0, 1) if node.target is aten.t.default else args[1:]
        order[first], order[second] = order[second], order[first]
    return order


def _is_reshape_by_strides(node: Node) -> bool:
    """Whether a view by strides, as global pooling of channels-last activations makes one, is a reshape."""
    args: Any = node.args
    base = args[0].meta["val"]
    size, stride, *offset = args[1:] if node.target is aten.as_strided.default else args[2:]
    view = torch.empty_strided(size, stride, device="meta")
    return base.numel() == view.numel() and base.is_contiguous() and view.is_contiguous() and not any(offset)


def _respell(node: Node) -> None:
    """Give a view its one spelling, on the source of the chain of views that ends in it."""
    source: Any = node.args[0]
    shape = _shape(node)
    if node.target in _PERMUTES:
        order = _order(node)
        if source.target is aten.permute.default:
            order = [source.args[1][axis] for axis in order]
            source = source.args[0]
        moved = [axis for axis in order if _shape(source)[axis] != 1]
        if moved != sorted(moved):
            node.target, node.args = aten.permute.default, (source, order)
            return
    if source.target is aten.reshape.default:
        source = source.args[0]
    node.target, node.args, node.kwargs = aten.reshape.default, (source, shape), {}


def _unchanged(node: Node) -> bool:
    """Whether `node` returns its first argument as it is."""
    if node.target in _COPIES:
        return True
    if (
        node.target is aten.relu.default
    ):  # its backward asks for the sign of the output, which is its own relu
        return isinstance(node.args[0], Node) and node.args[0].target is aten.relu.default
    if node.target in _SHAPERS or (
        node.target in _FACTORS and not isinstance(node.args[1], Node) and node.args[1] == 1
    ):
        return _shape(node.args[0]) == _shape(node) and _dtype(node.args[0]) == _dtype(node)
    return False


def fold(graph_module: GraphModule) -> None:
    """Spell views anew and remove what changes nothing."""
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _STRIDED and _is_reshape_by_strides(node):
            source = node.args[_STRIDED[node.target]]
            node.target, node.args, node.kwargs = aten.reshape.default, (source, _shape(node)), {}
        if node.target in _RESHAPES or node.target in _PERMUTES:
            _respell(node)
        if node.target is aten.copy.default and _dtype(node.args[1]) == _dtype(node):
            # what became of a write: the value written, in the shape of the target
            node.target, node.args = aten.expand.default, (node.args[1], _shape(node))
        if _unchanged(node):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
