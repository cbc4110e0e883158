"""Building an ONNX graph: nodes and constants, and one ATen call as its translation sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.fx import Node

from exporters.aten_call import AtenCall

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
        self.known: list[onnx.ValueInfoProto] = []  # shapes that no runtime can infer
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

    def add(
        self,
        op: str,
        *inputs: str,
        outputs: int = 1,
        known: Sequence[tuple[Sequence[int], torch.dtype]] = (),
        **attributes: Any,
    ) -> Result:
        """Append a node; returns its output's name, or a tuple of names. known: the shapes and types
        of the outputs, where they cannot be inferred."""
        names = [f"v{self._count + i}" for i in range(outputs)]
        self._count += outputs
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        for name, (shape, dtype) in zip(names, known, strict=False):
            self.known.append(helper.make_tensor_value_info(name, onnx_type(dtype), list(shape)))
        return names[0] if outputs == 1 else tuple(names)


class Call(AtenCall):
    """One ATen node while it is translated; tensors as the names of values."""

    def __init__(self, builder: Builder, node: Node, names: dict[Node, Result]) -> None:
        super().__init__(node, names)
        self.b = builder

    def name(self, node: Node) -> str:
        """The value of another node, one that is translated already."""
        return str(self._values[node])

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
            return str(self._values[value])
        return str(self.b.add("Cast", self._values[value], to=onnx_type(dtype)))
