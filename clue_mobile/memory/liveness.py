"""The bytes alive while a graph runs: what each node adds, and when it can be given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from clue_mobile.memory.barrier import after
from clue_mobile.memory.rules import GRAPH, Rules, size


@dataclass(frozen=True)
class Plan:
    """peak_bytes: alive at the worst moment: inputs and outputs, which the caller holds all the time
    (ports_bytes), the intermediates still needed and what the operator works with. at: the node that runs
    then, None for a graph without any. steps: bytes alive while each node of the order runs."""

    peak_bytes: int
    at: Node | None
    ports_bytes: int
    steps: tuple[int, ...]


def holders(order: Sequence[Node], rules: Rules) -> dict[Node, Node]:
    """The node whose memory each node's result is in: its own, or that of what it is a view of, or of what it
    is written over. A result of the program is in memory that the caller gives."""
    holder: dict[Node, Node] = {}
    kept = set()
    for node in order:
        shares = node.target in rules.views or node.target is after or rules.fused(node)
        source = node.args[0] if shares else None
        holder[node] = holder[source] if isinstance(source, Node) else node
        if node.op == "output":
            kept = {holder[used] for used in node.all_input_nodes}
    last = _last_uses(order, holder)
    if not rules.in_place:
        return holder
    # written over: the memory passes on from node to node, so last uses move as the walk goes on
    moved: dict[Node, Node] = {}
    for index, node in enumerate(order):
        own = holder[node]
        holder[node] = moved.get(own, own)
        if own is not node or node in kept or node.op != "call_function" or node.target not in rules.in_place:
            continue
        for used in node.all_input_nodes:
            place = holder[used]
            ends = last.get(place, -1) == index and place not in kept
            if place.op == "call_function" and ends and size(place) == size(node):
                moved[node] = place
                holder[node] = place
                last[place] = last.get(node, index)
                break
    return holder


def _last_uses(order: Sequence[Node], holder: dict[Node, Node]) -> dict[Node, int]:
    last: dict[Node, int] = {}
    for index, node in enumerate(order):
        for used in node.all_input_nodes:
            last[holder[used]] = index
    return last


def plan(graph: GraphModule, rules: Rules = GRAPH, order: Sequence[Node] | None = None) -> Plan:
    """Liveness over `order` (default: the graph's own)."""
    nodes = list(order if order is not None else graph.graph.nodes)
    holder = holders(nodes, rules)
    last = _last_uses(nodes, holder)
    given = sum(size(n) for n in nodes if n.op == "placeholder")
    made = {holder[n] for node in nodes if node.op == "output" for n in node.all_input_nodes}
    ports = given + sum(size(n) for n in made if n.op == "call_function")
    alive, peak, at = ports, ports, None
    steps = []
    for index, node in enumerate(nodes):
        if node.op == "call_function" and holder[node] is node and node not in made:
            alive += size(node)
        works = rules.workspace.get(node.target)
        now = alive + (works(node) if works is not None else 0)
        steps.append(now)
        if now > peak:
            peak, at = now, node
        for done in {holder[u] for u in node.all_input_nodes}:
            if done.op == "call_function" and last[done] == index and done not in made:
                alive -= size(done)
    return Plan(peak, at, ports, tuple(steps))
