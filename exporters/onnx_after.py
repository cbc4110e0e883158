"""`memory.barrier.after` in standard ONNX operators.

A Reshape whose shape depends on the other value: the shape's numbers plus an ArgMax over one element, which
is 0 whatever that is. The result is the same memory; the runtime can neither work it out beforehand, nor
take what is computed from it for what was computed from the value itself, nor begin before the other value
is there.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from exporters.onnx_graph import Builder, Result


def after(b: Builder, node: Node, names: dict[Node, Result]) -> Result:
    """The name of `node.args[0]`'s value, once the float values of `node.args[1:]` are known."""
    value, *first = node.args
    assert isinstance(value, Node)
    shape = list(value.meta["val"].shape)
    if not shape:  # a number: nobody saves memory by it
        return names[value]
    wanted = b.ints(shape)
    for other in first:
        assert isinstance(other, Node)
        wanted = b.add("Add", wanted, _zero(b, other, names[other]))
    return b.add("Reshape", names[value], wanted, known=(shape, value.meta["val"].dtype))


def _zero(b: Builder, node: Node, name: str) -> str:
    """An int64 [1] that is 0, known once the value is."""
    rank = node.meta["val"].dim()
    if node.meta["val"].dtype not in (torch.float32, torch.float16, torch.float64):
        raise AssertionError(f"{node} is no float value")
    if rank:
        name = b.add("Slice", name, b.ints([0] * rank), b.ints([1] * rank), b.ints(range(rank)))
    return str(b.add("ArgMax", b.add("Reshape", name, b.ints([1])), axis=0, keepdims=1))
