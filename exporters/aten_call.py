"""One ATen node as a translation reads it, whatever runtime it is translated for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node


class AtenCall:
    """Arguments by position and by name, defaults filled in; tensors as what `values` has for their nodes."""

    def __init__(self, node: Node, values: Mapping[Node, Any]) -> None:
        self.node, self._values = node, values
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = {**{a.name: v for a, v in zip(schema, node.args, strict=False)}, **node.kwargs}
        self._named: dict[str, Any] = {
            a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema
        }
        self._args: list[Any] = list(self._named.values())

    def __getitem__(self, index: int) -> Any:
        value = self._args[index]
        if isinstance(value, Node):
            return self._values[value]
        if isinstance(value, (list, tuple)) and any(isinstance(v, Node) for v in value):
            return [self._values[v] for v in value]
        return list(value) if isinstance(value, (list, tuple)) else value

    def raw(self, index: int) -> Any:
        """An argument as it stands in the traced graph: a node where it is a tensor."""
        return self._args[index]

    def named(self, name: str) -> Any:
        """An argument that is no tensor, by its name; None where the operator has none of that name."""
        return self._named.get(name)

    def shape(self, index: int) -> list[int]:
        """The shape of the tensor argument `index`."""
        return list(self._args[index].meta["val"].shape)

    @property
    def out(self) -> Any:
        """The (fake) result."""
        return self.node.meta["val"]

    def promoted(self) -> torch.dtype:
        """The type of two arguments together, as PyTorch promotes them."""
        left, right = (a.meta["val"] if isinstance(a, Node) else a for a in self._args[:2])
        return torch.result_type(left, right)

    def computed(self) -> torch.dtype:
        """The type in which an operator of two arguments computes, where it takes both of one."""
        return self.promoted() if self.out.dtype == torch.bool else self.out.dtype
