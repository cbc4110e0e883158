"""A traced step cut into units: stretches of its forward pass between places where little crosses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from clue_mobile.memory.liveness import holders
from clue_mobile.memory.rules import Rules, size

MOST_UNITS = 24
_LONG = 0.1  # of the program: what lives longer is saved for the backward pass


@dataclass(frozen=True)
class Units:
    """nodes, place: the program's order and the position of each node in it. turn: where the forward pass
    ends. cuts: positions that bound the units, from 0 to turn. late: of each forward value that the backward
    pass reads, views counted to what they are views of, the first and the last position that does."""

    nodes: Sequence[Node]
    place: Mapping[Node, int]
    holder: Mapping[Node, Node]
    turn: int
    cuts: tuple[int, ...]
    ends: Mapping[Node, int]
    late: Mapping[Node, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.cuts) - 1


def units(graph: GraphModule, rules: Rules, most: int = MOST_UNITS) -> Units:
    """Find the end of the forward pass and cut what lies before it."""
    nodes = list(graph.graph.nodes)
    place = {node: index for index, node in enumerate(nodes)}
    holder = holders(nodes, Rules(views=rules.views))
    uses: dict[Node, list[int]] = {}
    for node in nodes:
        for used in node.all_input_nodes:
            uses.setdefault(holder[used], []).append(place[node])
    values = {h: sorted(at) for h, at in uses.items() if h.op == "call_function"}
    turn = _turn(values, place, len(nodes))
    late = {
        value: (min(p for p in at if p >= turn), at[-1])
        for value, at in values.items()
        if place[value] < turn <= at[-1]
    }
    # where each value's life within the forward pass ends
    ends = {
        value: max((p for p in at if p < turn), default=place[value])
        for value, at in values.items()
        if place[value] < turn
    }
    return Units(nodes, place, holder, turn, _cuts(ends, late, place, turn, most), ends, late)


def _turn(values: Mapping[Node, Sequence[int]], place: Mapping[Node, int], count: int) -> int:
    """The position that most bytes of long-lived values cross: there the forward pass ends."""
    change = [0] * (count + 1)
    for value, at in values.items():
        if at[-1] - place[value] > _LONG * count:
            change[place[value] + 1] += size(value)
            change[at[-1]] -= size(value)
    crossing, best, turn = 0, 0, 0
    for position, more in enumerate(change):
        crossing += more
        if crossing > best:
            best, turn = crossing, position
    return turn


def _cuts(
    ends: Mapping[Node, int],
    late: Mapping[Node, tuple[int, int]],
    place: Mapping[Node, int],
    turn: int,
    most: int,
) -> tuple[int, ...]:
    """Positions in front of which least crosses within the forward pass; units of even saved bytes."""
    crossing = [0] * (turn + 1)
    saved = [0] * (turn + 1)  # bytes that the nodes before a position save
    change = [0] * (turn + 2)
    for value, end in ends.items():
        change[place[value] + 1] += size(value)
        change[end + 1] -= size(value)
    total = 0
    for position in range(turn + 1):
        total += change[position]
        crossing[position] = total
    running, by_place = 0, {place[v]: size(v) for v in late}
    for position in range(turn + 1):
        saved[position] = running
        running += by_place.get(position, 0)
    share = max(running / most, 1)
    found = [0]
    for number in range(1, most):
        stretch = [p for p in range(turn) if (number - 0.5) * share <= saved[p] < (number + 0.5) * share]
        if stretch:
            best = min(stretch, key=lambda p: (crossing[p], abs(saved[p] - number * share)))
            if best > found[-1]:
                found.append(best)
    return (*found, turn)
