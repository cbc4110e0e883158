"""How a runtime treats memory, as far as a plan of the bytes alive depends on it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten

Bytes = Callable[[Node], int]


def tensors(value: Any) -> list[Tensor]:
    """The tensors that an operator returns."""
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in tensors(v)] if isinstance(value, (tuple, list)) else []


def size(node: Node) -> int:
    """Bytes of a node's results; a constant is part of the program's file."""
    if node.op == "get_attr":
        return 0
    return sum(t.numel() * t.element_size() for t in tensors(node.meta.get("val")))


@dataclass(frozen=True)
class Rules:
    """A runtime's habits.

    views: operators whose result is their first argument's memory. in_place: operators that write over an
    argument of the same size whose last use they are. fused: whether a node's result is never written, since
    the runtime folds the node into those that read it. workspace: bytes that an operator takes while it runs.
    ties: whether the exporter spells `memory.barrier.after`; where it does not, the order alone keeps copies
    apart. recomputes: whether what an exporter writes is run as it stands, so that a copy stays one.
    """

    views: frozenset[Any] = frozenset({aten.reshape.default, operator.getitem})
    in_place: frozenset[Any] = frozenset()
    fused: Callable[[Node], bool] = lambda node: False
    workspace: Mapping[Any, Bytes] = field(default_factory=dict)
    ties: bool = False
    recomputes: bool = True


GRAPH = Rules()
"""No runtime in particular: views are free, every other result is new memory."""
