"""One ATen node while it becomes nodes of the delegate's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from exporters.aten_call import AtenCall
from exporters.executorch_graph import Builder

# marks in the meta of a node that `executorch_pieces.prepared` has changed
TRANSPOSED = "second operand lies transposed"  # a product
BOX = "starts and sizes"  # a slice that stands for a chain of them


class Call(AtenCall):
    """One ATen node while it is translated; tensors as ids of values."""

    def __init__(self, builder: Builder, node: Node, ids: dict[Node, int]) -> None:
        super().__init__(node, ids)
        self.b = builder

    def operand(self, index: int) -> int:
        """A tensor argument, or a number as a constant."""
        value = self.raw(index)
        return int(self._values[value]) if isinstance(value, Node) else self.b.number(float(value))


Translation = Callable[[Call], int]
Table = dict[Any, Translation]
