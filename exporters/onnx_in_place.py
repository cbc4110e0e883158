"""Which outputs a runtime may write over the input that they replace, as metadata of the file.

An output may where every node that reads the input has run before the one that makes the output, since that
one waits for it, or is that one and goes over both element by element. A runtime joins nodes, too: a product
and the sum behind it become one node that reads what the product read. So what makes the output is a sum or
a product of such and of joined vectors, up to the program's inputs, or joins vectors itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from clue_mobile.plan import Program

KEY = "clue.in_place"
_BY_ELEMENT = {"Add", "Sub", "Mul", "Div", "Neg", "Sqrt"}
_SAME_MEMORY = {"Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze"}

Makers = Mapping[str, onnx.NodeProto]


def pairs(graph: onnx.GraphProto, program: Program) -> dict[str, str]:
    """Output: input, of a graph that has the program's ports' names."""
    maker = {name: node for node in graph.node for name in node.output}
    read, written = (
        {port.binds: port.name for port in ports if port.role in ("state", "carry")}
        for ports in (program.inputs, program.outputs)
    )
    return {
        written[value]: read[value]
        for value in written.keys() & read.keys()
        if written[value] in maker and _free(graph, maker, maker[written[value]], read[value])
    }


def write(proto: onnx.ModelProto, program: Program) -> None:
    """Put the pairs into the file."""
    found = pairs(proto.graph, program)
    if found:
        text = " ".join(f"{out}={given}" for out, given in sorted(found.items()))
        onnx.helper.set_model_props(proto, {KEY: text})


def _free(graph: onnx.GraphProto, maker: Makers, last: onnx.NodeProto, given: str) -> bool:
    held = {given}
    for node in graph.node:  # in an order in which they can run
        if node.op_type in _SAME_MEMORY and node.input[0] in held:
            held.update(node.output)
    if not held.isdisjoint(value.name for value in graph.output) or not _goes_by_element(maker, last):
        return False
    before = _ancestors(maker, last.input)
    for node in graph.node:
        if held.isdisjoint(node.input):
            continue
        if node is last:
            if node.op_type == "Concat":
                return False
        elif id(node) not in before:
            return False
    return True


def _goes_by_element(maker: Makers, last: onnx.NodeProto) -> bool:
    if last.domain == "clue":
        return last.op_type == "Sgd"
    if last.op_type == "Concat":
        return True
    stack = [last]
    while stack:
        node = stack.pop()
        if node.domain != "clue" and node.op_type != "Concat":
            if node.domain or node.op_type not in _BY_ELEMENT:
                return False
            stack += [maker[name] for name in node.input if name in maker]
    return True


def _ancestors(maker: Makers, names: Sequence[str]) -> set[int]:
    """The nodes that must have run before these values are known."""
    found: set[int] = set()
    stack = list(names)
    while stack:
        node = maker.get(stack.pop())
        if node is not None and id(node) not in found:
            found.add(id(node))
            stack.extend(node.input)
    return found
