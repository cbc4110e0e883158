"""Splits a lowered graph into pieces for the XNNPACK delegate and the rest for portable kernels."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from executorch.exir._serialize._named_data_store import NamedDataStoreOutput
from torch.fx import Graph, GraphModule, Node

from exporters.executorch_call import BOX, TRANSPOSED, Call
from exporters.executorch_graph import Builder, UnsupportedError
from exporters.executorch_ops import TABLE
from exporters.executorch_shapes import slice_bounds

aten = torch.ops.aten
Nodes = dict[Node, None]  # an ordered set
Stage = tuple[Nodes, Nodes]  # nodes of a piece, and nodes for portable kernels that run after it

_BROADCASTING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default,
    aten.minimum.default, aten.gt.Tensor, aten.lt.Tensor, aten.ge.Tensor, aten.le.Tensor,
}  # fmt: skip
_PRODUCTS: dict[Any, int] = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1}
_REDUCTIONS = {
    aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.amax.default,
}  # fmt: skip
# what only moves elements
_MOVES = {
    aten.reshape.default, aten.permute.default, aten.slice.Tensor, aten.select.int, aten.cat.default,
    aten.constant_pad_nd.default, aten.expand.default, aten._to_copy.default, aten.clone.default,
    aten.full.default, aten.zeros_like.default, aten.ones_like.default, aten.new_zeros.default,
    aten.new_ones.default, aten.zeros.default, aten.ones.default, aten.full_like.default,
    aten.new_full.default, operator.getitem,
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a program that the delegate runs.

    arguments, results: nodes of the graph it was cut from. blob, data: the delegate's graph and constants.
    """

    arguments: list[Node]
    results: list[Node]
    blob: bytes
    data: NamedDataStoreOutput


def prepared(graph_module: GraphModule) -> GraphModule:
    """A copy for the delegate alone, which spares it copies: operators that broadcast take the source of an
    `expand` instead of its result, products that of a transpose, a slice of a slice that of the first."""
    graph = Graph()
    graph.output(graph.graph_copy(graph_module.graph, {}))
    for node in graph.nodes:
        if node.target in _PRODUCTS and _is_tensor(node, torch.float32):
            _spare_product(node)
        elif node.target is aten.slice.Tensor:
            _spare_slice(node)
        elif node.target is aten.where.self:
            _spare_zero_division(node)
        elif node.target in _BROADCASTING:
            for arg in list(node.args):
                others = [a for a in node.args if a is not arg]
                if _is_expand(arg) and _broadcast([arg.args[0], *others]) == _shape(node):
                    node.replace_input_with(arg, arg.args[0])
    graph.eliminate_dead_code()
    return GraphModule(graph_module, graph)


def _spare_product(node: Node) -> None:
    first = _PRODUCTS[node.target]
    args = [*node.args]
    source = _source_of_transpose(args[first + 1])
    if source is not None:
        args[first + 1] = source
        node.meta = {**node.meta, TRANSPOSED: True}
    if node.target is aten.bmm.default:
        args = [_unexpanded_batch(arg) for arg in args]
    node.args = tuple(args)


def _spare_slice(node: Node) -> None:
    source: Any = node.args[0]
    axis, start, length, step = slice_bounds(node)
    if step != 1:
        return
    starts, sizes = [0] * len(_shape(source)), list(_shape(source))
    starts[axis], sizes[axis] = start, length
    if BOX in source.meta:
        starts = [a + b for a, b in zip(starts, source.meta[BOX][0], strict=True)]
        node.replace_input_with(source, source.args[0])
    node.meta = {**node.meta, BOX: (starts, sizes)}


def _spare_zero_division(node: Node) -> None:
    """where(n == 0, filler, x / n), as the gradient of a norm has it, divides by 1 where n is 0.

    The delegate works out both branches and multiplies them with 1 and 0: 0 / 0 would spoil the filler.
    """
    condition, filler, quotient = (arg for arg in node.args if isinstance(arg, Node))
    if quotient.target is not aten.div.Tensor or condition.target is not aten.eq.Scalar:
        return
    x, divisor = quotient.args
    if condition.args != (divisor, 0) or not isinstance(divisor, Node):
        return
    with node.graph.inserting_before(node):
        one = node.graph.call_function(aten._to_copy.default, (condition,), {"dtype": torch.float32})
        safe = node.graph.call_function(aten.add.Tensor, (divisor, one))
        divided = node.graph.call_function(aten.div.Tensor, (x, safe))
    one.meta["val"] = safe.meta["val"] = divisor.meta["val"]
    divided.meta["val"] = quotient.meta["val"]
    node.args = (condition, filler, divided)


def _source_of_transpose(node: Any) -> Node | None:
    if not isinstance(node, Node) or node.target is not aten.permute.default:
        return None
    source: Any = node.args[0]
    order: Any = node.args[1]
    rank = len(_shape(node))
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    return source if [axis % rank for axis in order] == swapped else None


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _is_expand(node: Any) -> bool:
    return isinstance(node, Node) and node.target is aten.expand.default


def _broadcast(args: Iterable[Any]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(_shape(a) if isinstance(a, Node) else () for a in args))


def _unexpanded_batch(arg: Any) -> Any:
    if _is_expand(arg) and len(_shape(arg.args[0])) == 3 and _shape(arg.args[0])[1:] == _shape(arg)[1:]:
        return arg.args[0]
    return arg


def work(node: Node) -> int:
    """FLOPs: 2 for a multiply-add of a product or convolution, 1 for an element worked out or added up, none
    for moving elements."""
    from torch.utils.flop_counter import flop_registry

    value = node.meta.get("val")
    if node.op != "call_function" or node.target in _MOVES:
        return 0
    if node.target in _PRODUCTS:
        left: Any = node.args[_PRODUCTS[node.target]]
        return 2 * math.prod(_shape(node)) * _shape(left)[-1]
    if node.target in _REDUCTIONS:
        source: Any = node.args[0]
        return math.prod(_shape(source))
    packet = getattr(node.target, "overloadpacket", None)
    if packet in flop_registry:
        args = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
        return int(flop_registry[packet](*args, **node.kwargs, out_val=value))
    tensors = value if isinstance(value, (tuple, list)) else [value]
    return max((t.numel() for t in tensors if isinstance(t, torch.Tensor)), default=0)


# which nodes the delegate takes


def _is_tensor(node: Node, *types: torch.dtype) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in types


def _translates(graph_module: GraphModule, node: Node) -> bool:
    """Whether `TABLE` has this use of the operator: found by translating it alone."""
    if node.op != "call_function" or node.target not in TABLE:
        return False
    if not all(_is_tensor(n, torch.float32, torch.bool) for n in (node, *node.all_input_nodes)):
        return False
    builder = Builder()
    try:
        ids = {n: builder.input(_shape(n)) for n in node.all_input_nodes}
        out = TABLE[node.target](Call(builder, node, ids))
    except UnsupportedError:
        return False
    assert builder.shapes[out] == _shape(node), f"{node.format_node()} became {builder.shapes[out]}"
    return True


def _levels(graph: Graph, taken: set[Node]) -> dict[Node, int]:
    """How often the way to each node changes between the delegate and portable kernels: the taken nodes of
    one level are a piece, since no way leads out of a level and back."""
    levels: dict[Node, int] = {}
    for node in graph.nodes:
        levels[node] = max(
            (
                levels[n] + (n.op == "call_function" and (n in taken) != (node in taken))
                for n in node.all_input_nodes
            ),
            default=0,
        )
    return levels


def split(graph_module: GraphModule) -> list[Stage]:
    """Stages of (nodes of a piece, nodes for portable kernels that run after it), each in graph order.

    Conditions never leave a piece: the delegate has them as numbers.
    """
    graph = graph_module.graph
    taken = {node for node in graph.nodes if _translates(graph_module, node)}
    while True:
        levels = _levels(graph, taken)
        groups: dict[int, Nodes] = {}
        for node in graph.nodes:
            if node in taken:
                groups.setdefault(levels[node], {})[node] = None
        refused = {node for group in groups.values() if _only_reshapes(group) for node in group}
        for node in graph.nodes:
            for source in node.all_input_nodes:
                together = {node, source} <= taken and levels[source] == levels[node]
                if _is_tensor(source, torch.bool) and not together:
                    refused |= {source, node} if source.op == "call_function" else set()
        if not refused & taken:
            rest: dict[int, Nodes] = {}
            for node in graph.nodes:
                if node not in taken:
                    rest.setdefault(levels[node], {})[node] = None
            stages = sorted({*groups, *rest})
            return [(groups.get(stage, {}), rest.get(stage, {})) for stage in stages]
        taken -= refused


def _only_reshapes(group: Nodes) -> bool:
    return all(node.target is aten.reshape.default for node in group)


# a piece as the delegate's graph


def piece(graph_module: GraphModule, nodes: Nodes) -> Piece:
    """Translate the nodes of one piece."""
    results = [node for node in nodes if any(user not in nodes for user in node.users)]
    needed = set(results)
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    builder = Builder()
    ids: dict[Node, int] = {}
    arguments = []
    for node in graph_module.graph.nodes:
        if node not in needed or node in nodes:
            continue
        if node.op == "get_attr":
            ids[node] = builder.constant(getattr(graph_module, str(node.target)).numpy())
        else:
            ids[node] = builder.input(_shape(node))
            arguments.append(node)
    for node in nodes:
        if node in needed:
            ids[node] = TABLE[node.target](Call(builder, node, ids))
    outputs: list[int] = []
    fixed = {ids[n] for n in ids if n not in nodes}
    for node in results:
        value = ids[node]
        if value in fixed or value in outputs:  # an argument, a constant or another result as it is
            value = builder.unary(schema.XNNCopy, value)
        outputs.append(value)
    return Piece(arguments, results, builder.serialise(outputs), builder.data())


def delegated_share(graph: Graph, stages: Sequence[Stage]) -> float:
    """The share of the FLOPs that the pieces hold; 1 where there are none."""
    total = sum(work(node) for node in graph.nodes)
    delegated = sum(work(node) for taken, _ in stages for node in taken)
    return delegated / total if total else 1.0
