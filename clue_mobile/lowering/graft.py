"""Replacing a node by a function of tensors, traced: passes then write operators as the tables do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

Table = Mapping[Any, Callable[..., Any]]


def constant(graph_module: GraphModule, node: Any) -> Tensor | None:
    """The content of a constant's node, None for any other."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value = getattr(graph_module, str(node.target), None)
    return value if isinstance(value, Tensor) else None


def graft(
    graph_module: GraphModule,
    node: Node,
    function: Callable[..., Tensor],
    inputs: Sequence[Node],
    table: Table | None = None,
) -> None:
    """Put the operators of `function(*inputs)` in the place of `node`, whose value it computes.

    `table`: functions that stand for operators, as in `clue_mobile.lowering.TABLE`.
    """
    graph = graph_module.graph
    part = make_fx(function, decomposition_table=dict(table or {}))(*(n.meta["val"] for n in inputs))
    part.graph.eliminate_dead_code()
    mapped: dict[Node, Node] = dict(
        zip((n for n in part.graph.nodes if n.op == "placeholder"), inputs, strict=True)
    )
    with graph.inserting_before(node):
        for inner in part.graph.nodes:
            if inner.op == "get_attr":
                name = f"_grafted_{node.name}_{inner.name}"
                graph_module.register_buffer(name, getattr(part, str(inner.target)).detach())
                mapped[inner] = graph.get_attr(name)
            elif inner.op == "call_function":
                mapped[inner] = graph.node_copy(inner, mapped.__getitem__)
            elif inner.op == "output":
                (result,) = inner.args
                node.replace_all_uses_with(mapped[result])
                break
            mapped[inner].meta["val"] = inner.meta.get("val", mapped[inner].meta.get("val"))
    graph.erase_node(node)
