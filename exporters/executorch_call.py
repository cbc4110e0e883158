"""One ATen node while it becomes nodes of the delegate's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from exporters.executorch_graph import Builder

# marks in the meta of a node that `executorch_pieces.prepared` has changed
TRANSPOSED = "second operand lies transposed"  # a product
BOX = "starts and sizes"  # a slice that stands for a chain of them


class Call:
    """One ATen node while it is translated: arguments by position, tensors as ids of values."""

    def __init__(self, builder: Builder, node: Node, ids: dict[Node, int]) -> None:
        self.b, self.node, self._ids = builder, node, ids
        schema_arguments = node.target._schema.arguments  # type: ignore[union-attr]
        given = {**{a.name: v for a, v in zip(schema_arguments, node.args, strict=False)}, **node.kwargs}
        self._named: dict[str, Any] = {
            a.name: given.get(a.name, a.default_value if a.has_default_value() else None)
            for a in schema_arguments
        }
        self._args: list[Any] = list(self._named.values())

    def raw(self, index: int) -> Any:
        """The argument as it stands in the graph."""
        return self._args[index]

    def __getitem__(self, index: int) -> Any:
        value = self._args[index]
        if isinstance(value, Node):
            return self._ids[value]
        if isinstance(value, (list, tuple)) and any(isinstance(v, Node) for v in value):
            return [self._ids[v] for v in value]
        return list(value) if isinstance(value, (list, tuple)) else value

    def operand(self, index: int) -> int:
        """A tensor argument, or a number as a constant."""
        value = self._args[index]
        return self._ids[value] if isinstance(value, Node) else self.b.number(float(value))

    def named(self, name: str) -> Any:
        """An argument by its name; None where the operator has none of that name."""
        return self._named.get(name)

    def shape(self, index: int) -> list[int]:
        """The shape of the tensor argument `index`."""
        return list(self._args[index].meta["val"].shape)

    @property
    def out(self) -> Any:
        """The (fake) result."""
        return self.node.meta["val"]


Translation = Callable[[Call], int]
Table = dict[Any, Translation]
