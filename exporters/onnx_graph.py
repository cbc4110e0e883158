"""Building an ONNX graph: nodes and constants, and one ATen call as its translation sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.fx import Node

Result = Any  # the name of a value, or a tuple of names

_TYPES = {
    torch.float16: TensorProto.FLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


class UnsupportedError(Exception):
    """An operator, or a use of it, that `onnx_ops.TABLE` lacks."""


def onnx_type(dtype: torch.dtype) -> int:
    """ONNX's number for a type. Raises UnsupportedError where a program has no such values."""
    if dtype not in _TYPES:
        raise UnsupportedError(f"values of type {dtype}")
    return int(_TYPES[dtype])


class Builder:
    """Collects nodes and constants; equal constants are stored once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Any, onnx.TensorProto] = {}
        self._count = 0

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        """The name of an initializer with this content."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"c{len(self.constants)}")
        return self.constants[key].name

    def ints(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self.constant(np.asarray(values, np.int64).reshape(-1))

    def scalar(self, value: float, dtype: torch.dtype) -> str:
        """A constant of rank 0."""
        return self.constant(torch.tensor(value, dtype=dtype).numpy())

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Result:
        """Append a node; returns its output's name, or a tuple of names."""
        names = [f"v{self._count + i}" for i in range(outputs)]
        self._count += outputs
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else tuple(names)


class Call:
    """One ATen node while it is translated: positional arguments, with values by name, and the shapes behind
    them."""

    def __init__(self, builder: Builder, node: Node, names: dict[Node, Result]) -> None:
        self.b, self.node, self._names = builder, node, names
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = {**{a.name: v for a, v in zip(schema, node.args, strict=False)}, **node.kwargs}
        self._named: dict[str, Any] = {
            a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema
        }
        self._args: list[Any] = list(self._named.values())

    def __getitem__(self, index: int) -> Any:
        value = self._args[index]
        if isinstance(value, Node):
            return self._names[value]
        if isinstance(value, (list, tuple)) and any(isinstance(v, Node) for v in value):
            return [self._names[v] for v in value]
        return list(value) if isinstance(value, (list, tuple)) else value

    def shape(self, index: int) -> list[int]:
        """The shape of the tensor argument `index`."""
        return list(self._args[index].meta["val"].shape)

    @property
    def out(self) -> Any:
        """The (fake) result."""
        return self.node.meta["val"]

    def named(self, name: str) -> Any:
        """An argument that is no tensor, by its name; None where the operator has none of that name."""
        return self._named.get(name)

    def computed(self) -> torch.dtype:
        """The type in which an operator of two arguments computes: ONNX brings neither to the other's."""
        if self.out.dtype != torch.bool:
            return self.out.dtype
        left, right = (a.meta["val"] if isinstance(a, Node) else a for a in self._args[:2])
        return torch.result_type(left, right)

    def operand(self, index: int, dtype: torch.dtype) -> str:
        """A tensor argument, or a number as a constant, as a value of `dtype`."""
        return self._cast(self._args[index], dtype)

    def operands(self, index: int, dtype: torch.dtype) -> list[str]:
        """The same of each tensor of a list."""
        return [self._cast(value, dtype) for value in self._args[index]]

    def _cast(self, value: Any, dtype: torch.dtype) -> str:
        if not isinstance(value, Node):
            return self.b.scalar(value, dtype)
        if value.meta["val"].dtype == dtype:
            return str(self._names[value])
        return str(self.b.add("Cast", self._names[value], to=onnx_type(dtype)))
