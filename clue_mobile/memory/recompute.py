"""Recomputation: what the forward pass would have to keep is computed again where the backward pass asks.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. A choice covers some units (units.py) in
one of two ways: `whole` keeps only what crosses into the next unit, `light` also what was dear to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from clue_mobile.memory.barrier import after
from clue_mobile.memory.units import Units

aten = torch.ops.aten

# what takes long for the bytes that it makes
DEAR = frozenset({
    aten.convolution.default, aten.mm.default, aten.bmm.default, aten.addmm.default, aten.matmul.default,
    aten.cat.default,
})  # fmt: skip


# what reads a tensor out of a flat vector: merged with its copy it does no harm
_PARTS = frozenset({aten.slice.Tensor, aten.reshape.default})


@dataclass(frozen=True)
class Choice:
    """Units `start` to `stop` are recomputed. dropped: values that are given back after the forward pass.
    clones: the nodes computed again, in order; sources: kept values that these read."""

    start: int
    stop: int
    light: bool
    dropped: tuple[Node, ...]
    clones: tuple[Node, ...]
    sources: tuple[Node, ...]
    first_use: int


def choices(cut: Units) -> list[Choice]:
    """Every run of units recomputed as a whole, and each unit in the light way."""
    found = []
    for start in range(len(cut)):
        found.append(_choice(cut, start, start + 1, light=True))
        found += [_choice(cut, start, stop, light=False) for stop in range(start + 1, len(cut) + 1)]
    return [choice for choice in found if choice is not None]


def _choice(cut: Units, start: int, stop: int, light: bool) -> Choice | None:
    first, end = cut.cuts[start], cut.cuts[stop]
    inside = [n for n in cut.nodes[first:end] if n.op == "call_function"]
    dropped = {v for v in inside if v in cut.late and cut.ends[v] < end and not (light and v.target in DEAR)}
    if not dropped:
        return None
    needed: set[Node] = set()
    sources: dict[Node, None] = {}
    stack = [n for n in inside if cut.holder[n] in dropped and any(cut.place[u] >= cut.turn for u in n.users)]
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        for used in node.all_input_nodes:
            held = cut.holder[used]
            here = first <= cut.place[used] < end and used.op == "call_function"
            kept = held in cut.late and held not in dropped
            # a value that lives on behind the end of these units is kept for those behind, so it can be read
            kept = kept or (light and used.target in DEAR)
            # a tuple is no value that could be kept: what is taken out of it is
            kept = kept and isinstance(used.meta.get("val"), torch.Tensor)
            if here and not kept and (held in dropped or cut.ends.get(held, end) < end):
                stack.append(used)
            elif used.op == "call_function" or (used.op == "placeholder" and node.target not in _PARTS):
                sources[used] = None
    clones = tuple(n for n in inside if n in needed)
    use = min(cut.late[v][0] for v in dropped)
    ordered = tuple(sorted(dropped, key=cut.place.__getitem__))
    return Choice(start, stop, light, ordered, clones, tuple(sources), use)


def apply(graph_module: GraphModule, cut: Units, chosen: Sequence[Choice]) -> None:
    """Write the recomputation into the graph. Every result stays what it was, bit for bit."""
    for choice in chosen:
        _write(graph_module, cut, choice)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()


def _write(graph_module: GraphModule, cut: Units, choice: Choice) -> None:
    graph = graph_module.graph
    clones = set(choice.clones)
    readers = {n: [u for u in n.users if cut.place.get(u, -1) >= cut.turn] for n in choice.clones}
    tie = _tie([reader for found in readers.values() for reader in found], clones, cut)
    copied: dict[Node, Node] = {}
    for node in reversed(choice.clones):  # from the last on: each goes in front of the first that reads it
        if not readers[node]:
            continue
        with graph.inserting_before(min(readers[node])):
            copy = graph.node_copy(node)
        copied[node] = copy
        for reader in readers[node]:
            reader.replace_input_with(node, copy)
        for used in node.all_input_nodes:
            if used in clones:
                readers[used].append(copy)
    if tie is None:
        return
    for source in choice.sources:
        copies = [u for u in source.users if u in copied.values() and _tied(source, u)]
        if copies:
            with graph.inserting_before(min(copies)):
                tied = graph.call_function(after, (source, tie))
            tied.meta = dict(source.meta)
            for copy in copies:
                copy.replace_input_with(source, tied)


def _tie(readers: Sequence[Node], clones: set[Node], cut: Units) -> Node | None:
    """The last value of the backward pass, in front of the first that reads a copy, which one of the readers
    waits for; where none does, the last value of all."""
    first = min(readers)
    seen: set[Node] = set()
    stack, found = list(readers), []
    while stack:
        for used in stack.pop().all_input_nodes:
            if used not in seen and used not in clones and _late(used, cut):
                seen.add(used)
                stack.append(used)
                if used < first and _is_float(used):
                    found.append(used)
    if found:
        return max(found)
    before = (node for node in reversed(cut.nodes[cut.turn : cut.place[first]]) if _is_float(node))
    return next(before, None)


def _late(node: Node, cut: Units) -> bool:
    return node.op == "call_function" and cut.place.get(node, -1) >= cut.turn


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point()


def _tied(source: Node, reader: Node) -> bool:
    if not isinstance(source.meta.get("val"), torch.Tensor):
        return False
    return source.op == "call_function" or reader.target not in _PARTS
