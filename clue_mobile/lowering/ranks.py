"""Permutations of many axes as ones of few: mobile runtimes stop at rank 5.

Windows of images are cut by a view of rank 6, a permutation and a view. Neighbouring axes that stay
neighbours are one axis to the permutation, which is mostly enough; else two permutations do it, or three.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten

MAX_RANK = 5
_TRIED = 6

Step = tuple[tuple[int, ...], tuple[int, ...]]  # (shape to view as, order of its axes)


def merged(shape: Sequence[int], order: Sequence[int]) -> Step:
    """The same permutation of memory with as few axes as it takes: (shape, order)."""
    runs: list[list[int]] = []
    for axis in (axis for axis in order if shape[axis] != 1):
        before = runs[-1][-1] if runs else None
        if before is not None and all(shape[a] == 1 for a in range(before + 1, axis)) and axis > before:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    places = sorted(range(len(runs)), key=lambda number: runs[number])
    sizes = tuple(math.prod(shape[axis] for axis in runs[number]) for number in places)
    return sizes, tuple(places.index(number) for number in range(len(runs)))


@cache
def steps(shape: tuple[int, ...], order: tuple[int, ...], most: int = MAX_RANK) -> tuple[Step, ...]:
    """Permutations of rank `most` (at least 4) at most that make this one, one after the other.

    As few as can be up to six axes.
    """
    whole = merged(shape, order)
    if len(whole[0]) <= most:
        return (whole,)
    sizes, wanted = whole
    best: tuple[Step, ...] | None = None
    # of more axes there are too many orders to try them all
    for first in itertools.permutations(range(len(sizes))) if len(sizes) <= _TRIED else ():
        step = merged(sizes, first)
        if len(step[0]) > most or first == tuple(range(len(sizes))):
            continue
        between = tuple(sizes[axis] for axis in first)
        rest = merged(between, [first.index(axis) for axis in wanted])
        if len(rest[0]) <= most and (best is None or _cost(step, rest) < _cost(*best)):
            best = (step, rest)
    if best is not None:
        return best
    # bring the first axis that is not in its place there, which is a permutation of four axes, and go on
    at = next(place for place, axis in enumerate(wanted) if axis != place)
    front = (*range(at), wanted[at], *(axis for axis in range(at, len(sizes)) if axis != wanted[at]))
    between = tuple(sizes[axis] for axis in front)
    return (merged(sizes, front), *steps(between, tuple(front.index(axis) for axis in wanted), most))


def _cost(*chain: Step) -> int:
    return sum(len(shape) for shape, _ in chain)


def lower_permutes(graph_module: GraphModule) -> bool:
    """Spell each permutation of more than five axes by views and smaller ones; whether there was one.

    The views of the old rank are left for the clean-up to join with their neighbours.
    """
    graph, found = graph_module.graph, False
    for node in list(graph.nodes):
        if node.target is not aten.permute.default or len(node.args[1]) <= MAX_RANK:
            continue
        found = True
        source = node.args[0]
        assert isinstance(source, Node)
        value = source.meta["val"]
        order = tuple(axis % value.dim() for axis in node.args[1])
        with graph.inserting_before(node):
            last = source
            for shape, step in steps(tuple(value.shape), order):
                last = _call(graph_module, aten.reshape.default, last, list(shape))
                last = _call(graph_module, aten.permute.default, last, list(step))
            last = _call(graph_module, aten.reshape.default, last, list(node.meta["val"].shape))
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    return found


def _call(graph_module: GraphModule, target: object, source: Node, argument: list[int]) -> Node:
    node = graph_module.graph.call_function(target, (source, argument))  # type: ignore[arg-type]
    node.meta["val"] = target(source.meta["val"], argument)  # type: ignore[operator]
    return node
