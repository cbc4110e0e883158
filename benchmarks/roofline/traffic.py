"""What a traced program computes and moves, node by node: FLOPs of its products, bytes read and written.

Bytes are the graph's own traffic, as an engine moves it that runs one node after the other: each node reads
its inputs and writes its outputs once. Free are views (reshape, one of several results), constants, and a
transpose that only products read, which runtimes take into the product. A slice reads what it keeps.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from pi5 import Work
from torch.fx import GraphModule, Node

from clue_mobile.memory.flops import node_flops

aten = torch.ops.aten
_VIEWS = {aten.reshape.default, aten.view.default, operator.getitem}
_PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}
_PARTS = {aten.slice.Tensor, aten.index_select.default, aten.gather.default, aten.embedding.default}


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _size(node: Node) -> int:
    return sum(t.numel() * t.element_size() for t in _tensors(node.meta.get("val")))


def _free(node: Node) -> bool:
    if node.op != "call_function" or node.target in _VIEWS:
        return True
    return node.target == aten.permute.default and all(_into_product(user) for user in node.users)


def _into_product(user: Node) -> bool:
    if user.target in _VIEWS:
        return bool(user.users) and all(_into_product(u) for u in user.users)
    return user.target in _PRODUCTS


def moved(node: Node) -> int:
    """Bytes that the node reads and writes."""
    if _free(node):
        return 0
    written = _size(node)
    if node.target in _PARTS:
        return 2 * written
    return written + sum(_size(each) for each in node.all_input_nodes)


def kind(node: Node) -> str:
    """dense, grouped (a convolution of several groups) or other."""
    if node_flops(node) == 0:
        return "other"
    convolution = node.target == aten.convolution.default
    return "grouped" if convolution and node.args[-1] != 1 else "dense"


def work(graph: GraphModule) -> list[Work]:
    """The nodes that cost something, equal ones together."""
    found = Counter(
        (kind(node), node_flops(node), moved(node))
        for node in graph.graph.nodes
        if node_flops(node) or moved(node)
    )
    return [Work(*key, count) for key, count in sorted(found.items())]
