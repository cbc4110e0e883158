"""Matrix products in the forms that ONNX Runtime computes fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from exporters.onnx_graph import Call, Result

aten = torch.ops.aten

# A product along this many rows of two matrices at least this wide: below, moving an operand costs what it
# saves.
_LONG, _WIDE = 1024, 32


def _transposed(node: Any) -> Node | None:
    """The matrix of which `node` is the transpose."""
    if not isinstance(node, Node) or node.target not in (aten.t.default, aten.permute.default):
        return None
    args: Any = node.args
    matrix = node.target is aten.t.default or list(args[1]) == [1, 0]
    return args[0] if matrix and args[0].meta["val"].dim() == 2 else None


def mm(c: Call) -> Result:
    """aten.mm. The gradient of a linear layer's weights, g^T x, is long: one operand is transposed by itself.

    ONNX Runtime joins a transpose and the product behind it, and its product of a transposed left side is
    slow (x86-64, one thread, [1576, 768]^T [1576, 192]: 12 ms, against 8 for the two apart). So the transpose
    has an axis of size 1 between, which that joining does not see through; the narrower operand is the one
    to transpose.
    """
    source = _transposed(c.node.args[0])
    rows, (wide, narrow) = c.shape(0)[1], c.out.shape
    if source is None or c.out.dtype != torch.float32 or rows < _LONG or min(wide, narrow) < _WIDE:
        return c.b.add("MatMul", c[0], c[1])
    left, right = c.name(source), c[1]
    if wide <= narrow:
        return c.b.add("MatMul", _apart(c, left, rows, wide), right)
    return c.b.add("Transpose", c.b.add("MatMul", _apart(c, right, rows, narrow), left), perm=[1, 0])


def _apart(c: Call, value: str, rows: int, width: int) -> str:
    """value [rows, width] -> [width, rows], as no joining of operators finds it."""
    between = c.b.add("Reshape", value, c.b.ints([rows, 1, width]))
    moved = c.b.add("Transpose", between, perm=[2, 0, 1])
    return str(c.b.add("Reshape", moved, c.b.ints([width, rows])))
