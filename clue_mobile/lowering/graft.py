"""Putting functions of tensors into a graph, traced: passes then write operators as the tables do."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

Table = Mapping[Any, Callable[..., Any]]


def constant(graph_module: GraphModule, node: Any) -> Tensor | None:
    """The content of a constant's node, None for any other."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value = getattr(graph_module, str(node.target), None)
    return value if isinstance(value, Tensor) else None


def insert(
    graph_module: GraphModule,
    place: Node,
    function: Callable[..., Any],
    inputs: Sequence[Node],
    table: Table | None = None,
) -> Any:
    """Put the operators of `function(*inputs)` before `place`; returns the node of its result, or a list of
    nodes (None where the function has None) if it returns several.

    `table`: functions that stand for operators, as in `clue_mobile.lowering.TABLE`.
    """
    graph = graph_module.graph
    part = make_fx(function, decomposition_table=dict(table or {}))(*(n.meta["val"] for n in inputs))
    part.graph.eliminate_dead_code()
    mapped: dict[Node, Node] = dict(
        zip((n for n in part.graph.nodes if n.op == "placeholder"), inputs, strict=True)
    )
    results: Any = None
    with graph.inserting_before(place):
        for inner in part.graph.nodes:
            if inner.op == "get_attr":
                name = f"_grafted_{place.name}_{inner.name}"
                while hasattr(graph_module, name):  # of another function before the same place
                    name += "_"
                graph_module.register_buffer(name, getattr(part, str(inner.target)).detach())
                mapped[inner] = graph.get_attr(name)
            elif inner.op == "call_function":
                mapped[inner] = graph.node_copy(inner, mapped.__getitem__)
            elif inner.op == "output":
                (results,) = inner.args
                break
            mapped[inner].meta["val"] = inner.meta.get("val", mapped[inner].meta.get("val"))
    if isinstance(results, (tuple, list)):
        return [None if result is None else mapped[result] for result in results]
    return mapped[results]


def replace_results(graph_module: GraphModule, node: Node, results: Sequence[Node | None]) -> None:
    """Put `results` in the place of those of `node`, an operator with several, and take the node away."""
    for user in list(node.users):
        assert user.target is operator.getitem
        result = results[user.args[1]]  # type: ignore[index]
        if result is not None:
            user.replace_all_uses_with(result)
        graph_module.graph.erase_node(user)
    graph_module.graph.erase_node(node)


def graft(
    graph_module: GraphModule,
    node: Node,
    function: Callable[..., Any],
    inputs: Sequence[Node],
    table: Table | None = None,
) -> None:
    """Put the operators of `function(*inputs)` in the place of `node`, whose value or values it computes."""
    made = insert(graph_module, node, function, inputs, table)
    if isinstance(made, list):
        replace_results(graph_module, node, made)
    else:
        node.replace_all_uses_with(made)
        graph_module.graph.erase_node(node)


def _call_of(node: Node) -> Callable[..., Any]:
    """What `node` computes, as a function of its input nodes' values."""

    def call(*tensors: Tensor) -> Any:
        values = dict(zip(node.all_input_nodes, tensors, strict=True))
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    return call


def spell(graph_module: GraphModule, targets: Collection[Any], table: Table) -> bool:
    """Replace each operator of `targets` by its function of `table`; True where there was one.

    What the table declines (NotImplemented) stays, and is not counted.
    """
    found = False
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function" or node.target not in targets or node.target not in table:
            continue
        before = len(graph_module.graph.nodes)
        graft(graph_module, node, _call_of(node), node.all_input_nodes, table)
        found |= len(graph_module.graph.nodes) != before
    return found
