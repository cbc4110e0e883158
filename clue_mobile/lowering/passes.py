"""Graph clean-up after tracing: every exporter's cost grows with the nodes, so none is kept for nothing.

All shapes are static and all operators pure here, so views are spelled anew: whatever changes a shape alone
becomes `reshape`, whatever changes the order of axes `permute`, and a chain of either one node.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from clue_mobile.lowering import gather, ranks
from clue_mobile.lowering.graft import Table

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
_FILLS = {
    aten.ones_like.default: 1,
    aten.zeros_like.default: 0,
    aten.new_zeros.default: 0,
    aten.new_ones.default: 1,
}
_MAX_CONSTANT = 4096  # elements; anything larger is cheaper to make on the device than to store
_MAX_INDEX = 1 << 18  # of whole numbers: an index has to be known where it is used
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


def share_equal(graph_module: GraphModule) -> None:
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


def fold_constants(graph_module: GraphModule) -> None:
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


_MAX_POOLS = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}


def values_only_max_pool(graph_module: GraphModule) -> None:
    """`max_pool2d_with_indices(...)[0]` becomes `max_pool2d`: unread indices cost nodes on every runtime."""
    graph = graph_module.graph
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


def join_products(graph_module: GraphModule) -> bool:
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


def clean(graph_module: GraphModule, table: Table | None = None) -> GraphModule:
    """Run every pass until the graph stops shrinking. `table`: lowerings of what the passes write."""
    _shrink(graph_module)
    if join_products(graph_module):
        _shrink(graph_module)
    if gather.spell(graph_module, table or {}):
        _shrink(graph_module)
    if ranks.lower_permutes(graph_module):
        _shrink(graph_module)
    values_only_max_pool(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _shrink(graph_module: GraphModule) -> None:
    size = -1
    while size != len(graph_module.graph.nodes):
        size = len(graph_module.graph.nodes)
        fold(graph_module)
        fold_constants(graph_module)
        share_equal(graph_module)
        graph_module.graph.eliminate_dead_code()
