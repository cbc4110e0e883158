"""The cheapest recomputation that keeps a program's planned peak within a budget.

An integer program, solved exactly by HiGHS through scipy: one binary variable for each choice of
recompute.choices, no unit in two of them, and at every moment the bytes alive within the budget. A choice's
effect on the bytes is taken as independent of the others'; what was chosen is then written into a copy of the
graph and planned anew, and the budget tightened by what it was off, until the real plan fits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import GraphModule, Node

from clue_mobile.errors import ClueError
from clue_mobile.memory import liveness, recompute
from clue_mobile.memory.barrier import remove_ties
from clue_mobile.memory.flops import node_flops
from clue_mobile.memory.recompute import Choice
from clue_mobile.memory.rules import GRAPH, Rules, size
from clue_mobile.memory.units import Units, units

_TRIES = 12
_FLOPS, _BYTES = 30e9, 6e9  # a second, one core of a small computer: only their ratio matters
MIB = 2**20


@dataclass(frozen=True)
class Fitted:
    """A program within its budget. recomputed: nodes that run twice; flops: what these compute."""

    graph: GraphModule
    peak_bytes: int
    recomputed: int
    flops: int


def fit(graph: GraphModule, budget: int, rules: Rules = GRAPH, name: str = "program") -> Fitted:
    """`graph`, or a copy that recomputes what it must, with a planned peak of at most `budget` bytes.

    Raises ClueError with the smallest budget that can be reached where that is more.
    """
    peak = liveness.plan(graph, rules).peak_bytes
    if peak <= budget:
        return Fitted(graph, peak, 0, 0)
    if not rules.recomputes:
        raise ClueError(
            f"the program {name!r} needs {peak / MIB:.1f} MiB, and this runtime orders and merges operators "
            "by itself, so that nothing can be recomputed: leave the runtime or --memory-budget out"
        )
    model = _Model(graph, rules)
    aim, best = float(budget), peak
    for _ in range(_TRIES):
        chosen = model.cheapest(aim)
        if chosen is None:
            break
        fitted = model.write(chosen)
        if fitted.peak_bytes <= budget:
            return fitted
        best = min(best, fitted.peak_bytes)
        aim -= max(fitted.peak_bytes - budget, aim / 200)
    for chosen in model.smallest():
        fitted = model.write(chosen)
        if fitted.peak_bytes <= budget:
            return fitted
        best = min(best, fitted.peak_bytes)
    raise ClueError(
        f"the program {name!r} needs {peak / MIB:.1f} MiB and cannot be brought below {best / MIB:.1f} MiB "
        f"by recomputation: give a --memory-budget of at least {math.ceil(best / MIB * 10) / 10}MiB, or a "
        "smaller --batch"
    )


class _Model:
    """The integer program of one graph."""

    def __init__(self, graph: GraphModule, rules: Rules) -> None:
        self.graph, self.rules = graph, rules
        self.cut: Units = units(graph, rules)
        self.choices: list[Choice] = recompute.choices(self.cut)
        flops = {node: node_flops(node) for node in self.cut.nodes}
        self.cost = np.array([_seconds(choice, flops) for choice in self.choices])
        base = np.array(liveness.plan(graph, rules).steps, dtype=float)
        effect = np.array([self._effect(choice, len(base)) for choice in self.choices])
        effect = effect.reshape(len(self.choices), len(base))
        # moments at which every choice has the same effect differ only in the bytes alive: the worst counts
        rows: dict[bytes, int] = {}
        for moment in np.argsort(base):
            rows[effect[:, moment].tobytes()] = int(moment)
        kept = sorted(rows.values())
        self.base, self.effect = base[kept] / MIB, effect[:, kept].T / MIB
        self.flops = flops

    def _effect(self, choice: Choice, moments: int) -> Any:
        change = np.zeros(moments)
        for value in choice.dropped:
            change[self.cut.ends[value] + 1 : choice.first_use] -= size(value)
        for held in {self.cut.holder[source] for source in choice.sources}:
            if held.op == "call_function":
                last = self.cut.late[held][1] if held in self.cut.late else self.cut.ends.get(held, moments)
                change[last + 1 : choice.first_use + 1] += size(held)
        return change

    def cheapest(self, budget: float) -> list[Choice] | None:
        """The least costly choices whose modelled peak fits, None where there are none."""
        return self._solve(np.append(self.cost, 0.0), budget / MIB)

    def smallest(self) -> list[list[Choice]]:
        """Choices of the smallest modelled peak, and of one a little above it."""
        least = self._solve(np.append(1e-6 * self.cost, 1.0), None)
        return [] if least is None else [least]

    def _solve(self, cost: Any, budget: float | None) -> list[Choice] | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        count = len(self.choices)
        if not count:
            return None
        covers = np.zeros((len(self.cut), count + 1))
        for index, choice in enumerate(self.choices):
            covers[choice.start : choice.stop, index] = 1
        # the last variable is the peak
        alive = np.hstack([self.effect, -np.ones((len(self.base), 1))])
        result = milp(
            cost,
            constraints=[LinearConstraint(covers, -np.inf, 1), LinearConstraint(alive, -np.inf, -self.base)],
            bounds=Bounds(
                np.zeros(count + 1), np.append(np.ones(count), np.inf if budget is None else budget)
            ),
            integrality=np.append(np.ones(count), 0),
            options={"time_limit": 60, "mip_rel_gap": 0.002},
        )
        if result.x is None:
            return None
        return [choice for choice, on in zip(self.choices, result.x, strict=False) if on > 0.5]

    def write(self, chosen: Sequence[Choice]) -> Fitted:
        """A copy of the graph with these choices written into it."""
        written = copy.deepcopy(self.graph)
        originals = dict(zip(self.graph.graph.nodes, written.graph.nodes, strict=True))
        recompute.apply(written, *_moved(self.cut, chosen, originals))
        if not self.rules.ties:
            remove_ties(written)
        peak = liveness.plan(written, self.rules).peak_bytes
        copies = [node for choice in chosen for node in choice.clones]
        return Fitted(written, peak, len(copies), sum(self.flops[node] for node in copies))


def _moved(cut: Units, chosen: Sequence[Choice], to: dict[Node, Node]) -> tuple[Units, list[Choice]]:
    """The units and choices of a graph as those of its copy."""
    moved = Units(
        [to[n] for n in cut.nodes],
        {to[n]: at for n, at in cut.place.items()},
        {to[n]: to[h] for n, h in cut.holder.items()},
        cut.turn,
        cut.cuts,
        {to[n]: at for n, at in cut.ends.items()},
        {to[n]: at for n, at in cut.late.items()},
    )
    return moved, [
        Choice(
            c.start,
            c.stop,
            c.light,
            tuple(to[n] for n in c.dropped),
            tuple(to[n] for n in c.clones),
            tuple(to[n] for n in c.sources),
            c.first_use,
        )
        for c in chosen
    ]


def _seconds(choice: Choice, flops: dict[Node, int]) -> float:
    return sum(flops[node] / _FLOPS + 2 * size(node) / _BYTES for node in choice.clones)
