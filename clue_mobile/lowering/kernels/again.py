"""What is cheap is computed again for the backward pass instead of being kept for it.

A norm, a layer norm and GELU are one pass over what they read, and that their own gradients read anyway; the
normalised pixels are one over the program's input.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from clue_mobile.lowering.kernels.layout import put

aten, clue = torch.ops.aten, torch.ops.clue

# the operators, each with the number of its arguments in front of `after`
CHEAP = {clue.norm.default: 8, clue.layer_norm.default: 4, clue.gelu.default: 1, clue.image.default: 3}
_CONVOLUTIONS = {clue.conv_grad.default, clue.conv_input_grad.default}
_GRADIENTS = {
    *_CONVOLUTIONS, clue.conv_weight_grad.default, clue.max_pool_grad.default, clue.norm_grad.default,
    clue.layer_norm_grad.default, clue.gelu_grad.default,
}  # fmt: skip
_ORDERS = (aten.reshape.default, aten.permute.default)
_LEAST = 1 << 14


def again(graph_module: GraphModule) -> None:
    """Give the readers in the backward pass a copy, made once what the first of them waits for is there.

    So it is with the weights of products, which are cut out of the parameters. A norm with a residual is left
    alone: that would have to be kept for it, or be computed again as well.
    """
    graph = graph_module.graph
    backward = _backward(graph)
    for node in list(graph.nodes):
        if node in backward or not (_is_cheap(node) or _is_part(node)):
            continue
        forms = _forms(node)
        readers = [r for r in graph.nodes if r in backward and not forms.isdisjoint(r.all_input_nodes)]
        if _is_part(node):  # convolutions read their weights where they lie
            readers = [r for r in readers if r.target not in _CONVOLUTIONS]
        ahead = any(r not in backward and r not in forms for form in forms for r in form.users)
        first = _waited_for(readers[0], forms, backward) if readers else None
        if not ahead or first is None:
            continue
        copies: dict[Node, Node] = {}
        with graph.inserting_before(readers[0]):
            for form in sorted(forms):
                if form is node or any(r in readers or r in forms for r in form.users):
                    copies[form] = _copy(graph, form, copies, first)
        for reader in readers:
            for form in forms:
                if form in copies:
                    reader.replace_input_with(form, copies[form])


def _is_cheap(node: Node) -> bool:
    return node.target in CHEAP and (node.target is not clue.norm.default or node.args[5] is None)


def _is_part(node: Node) -> bool:
    """Whether it is a larger piece of a vector that the program is given."""
    vector: Any = node.args[0] if node.args else None
    return (
        node.target is aten.slice.Tensor
        and len(node.args) == 4
        and isinstance(vector, Node)
        and vector.op == "placeholder"
        and vector.meta["val"].dim() == 1
        and node.meta["val"].numel() >= _LEAST
    )


def _backward(graph: Graph) -> set[Node]:
    """The gradients and what is computed from them."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.target in _GRADIENTS or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _forms(node: Node) -> set[Node]:
    """The node's result and what is only another order or shape of it."""
    forms, stack = {node}, [node]
    while stack:
        form = stack.pop()
        for user in form.users:
            if form.target is clue.layer_norm.default:
                same = user.target is operator.getitem and user.args[1] == 0
            else:
                same = user.target in _ORDERS
            if same:
                forms.add(user)
                stack.append(user)
    return forms


def _waited_for(reader: Node, forms: set[Node], backward: set[Node]) -> Node | None:
    """A value of the backward pass that the reader reads, as it lies in memory."""
    for used in reader.all_input_nodes:
        if used in backward and used not in forms:
            while used.target in _ORDERS and isinstance(used.args[0], Node):
                used = used.args[0]
            return used if isinstance(used.meta["val"], torch.Tensor) else None
    return None


def _copy(graph: Graph, form: Node, copies: dict[Node, Node], first: Node) -> Node:
    if _is_part(form):
        vector, _, start, stop = form.args[:4]
        return put(graph, clue.part.default, (vector, start, stop, first))
    made = graph.node_copy(form, lambda used: copies.get(used, used))
    if form.target in CHEAP:
        args: tuple[Any, ...] = made.args[: CHEAP[form.target]]
        made.args = (*args, first)
    return made
