"""How ONNX Runtime's CPU build treats memory, read from its kernels' definitions and checked against measured
peaks (benchmarks/memory)."""

from __future__ import annotations

import math

from torch.fx import Node

from clue_mobile.memory.rules import Rules, aten

_PRODUCTS = {aten.mm.default, aten.bmm.default, aten.matmul.default}


def _folded(node: Node) -> bool:
    """A transpose of the last two axes that only products read: FusedMatMul reads the source as it lies."""
    if node.target is not aten.permute.default:
        return False
    order = list(node.args[1])  # type: ignore[arg-type]
    rank = len(order)
    last = rank > 1 and order == [*range(rank - 2), rank - 1, rank - 2]
    return last and bool(node.users) and all(user.target in _PRODUCTS for user in node.users)


def _columns(node: Node) -> int:
    """What a transposed convolution works with: the columns of one image."""
    if not node.args[6]:
        return 0
    grad, weight = node.args[0], node.args[1]
    assert isinstance(grad, Node)
    assert isinstance(weight, Node)
    groups = int(node.args[8])  # type: ignore[arg-type]
    channels, *kernel = weight.meta["val"].shape[1:]
    place = math.prod(grad.meta["val"].shape[2:])
    return int(channels * groups * math.prod(kernel) * place * node.meta["val"].element_size())


RULES = Rules(
    views=frozenset({aten.reshape.default}),
    in_place=frozenset({
        aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.mul.Tensor, aten.mul.Scalar,
        aten.div.Tensor, aten.div.Scalar, aten.rsub.Scalar, aten.relu.default, aten.exp.default,
        aten.log.default, aten.sqrt.default, aten.abs.default, aten.neg.default, aten.tanh.default,
        aten.sigmoid.default, aten._softmax.default, aten.reciprocal.default,
    }),
    fused=_folded,
    workspace={aten.convolution.default: _columns},
    ties=True,
)  # fmt: skip
