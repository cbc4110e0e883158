"""`memory.barrier.after` in standard ONNX operators.

A Reshape whose shape depends on the other value: the shape's numbers plus an ArgMax over one element, which
is 0 whatever that is. The result is the same memory; the runtime can neither work it out beforehand, nor
take what is computed from it for what was computed from the value itself, nor begin before the other value
is there.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from clue_mobile.memory import barrier
from exporters.onnx_graph import Builder, Result

aten = torch.ops.aten


def after(b: Builder, node: Node, names: dict[Node, Result]) -> Result:
    """The name of `node.args[0]`'s value, once the float values of `node.args[1:]` are known.

    ONNX Runtime joins a Reshape with the one that it alone feeds, and drops the tie or fails. So one stands
    for both: of what is reshaped, and in the shape of the reshape that alone reads the result (`joined`).
    """
    value, *first = node.args
    assert isinstance(value, Node)
    shaped = next(iter(node.users)) if _read_by_a_reshape(node) else value
    shape = list(shaped.meta["val"].shape)
    if not shape:  # a number: nobody saves memory by it
        return names[value]
    wanted = b.ints(shape)
    for other in first:
        assert isinstance(other, Node)
        wanted = b.add("Add", wanted, _zero(b, other, names[other]))
    while value.target is aten.reshape.default:
        assert isinstance(value.args[0], Node)
        value = value.args[0]
    return b.add("Reshape", names[value], wanted, known=[(shape, value.meta["val"].dtype)])


def joined(node: Node) -> bool:
    """Whether the value of this node's first argument has been brought into the node's shape already."""
    source = node.args[0] if node.args else None
    return (
        node.target is aten.reshape.default
        and isinstance(source, Node)
        and source.target is barrier.after
        and node.meta["val"].dim() > 0
        and _read_by_a_reshape(source)
    )


def _read_by_a_reshape(node: Node) -> bool:
    return len(node.users) == 1 and next(iter(node.users)).target is aten.reshape.default


def _zero(b: Builder, node: Node, name: str) -> str:
    """An int64 [1] that is 0, known once the value is."""
    rank = node.meta["val"].dim()
    if node.meta["val"].dtype not in (torch.float32, torch.float16, torch.float64):
        raise AssertionError(f"{node} is no float value")
    if rank:
        name = b.add("Slice", name, b.ints([0] * rank), b.ints([1] * rank), b.ints(range(rank)))
    return str(b.add("ArgMax", b.add("Reshape", name, b.ints([1])), axis=0, keepdims=1))
