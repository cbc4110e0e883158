"""How a runtime treats memory, as far as a plan of the bytes alive depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten

Bytes = Callable[[Node], int]


def size(node: Node) -> int:
    """Bytes of a node's result. A constant is part of the program's file; several results are counted where
    each is taken out of the tuple."""
    value = node.meta.get("val")
    if node.op == "get_attr" or not isinstance(value, Tensor):
        return 0
    return int(value.numel() * value.element_size())


@dataclass(frozen=True)
class Rules:
    """A runtime's habits.

    views: operators whose result is their first argument's memory. in_place: operators that write over an
    argument of the same size whose last use they are. fused: whether a node's result is never written, since
    the runtime folds the node into those that read it. workspace: bytes that an operator takes while it runs.
    ties: whether the exporter spells `memory.barrier.after`; where it does not, the order alone keeps copies
    apart. recomputes: whether what an exporter writes is run as it stands, so that a copy stays one.
    rewritten: what the exporter makes of a graph before it writes it, in place; planned is that.
    """

    views: frozenset[Any] = frozenset({aten.reshape.default})
    in_place: frozenset[Any] = frozenset()
    fused: Callable[[Node], bool] = lambda node: False
    workspace: Mapping[Any, Bytes] = field(default_factory=dict)
    ties: bool = False
    recomputes: bool = True
    rewritten: Callable[[GraphModule], GraphModule] = lambda graph: graph


GRAPH = Rules()
"""No runtime in particular: views are free, every other result is new memory."""
