"""The plan as a sequence of numbered operations (contract/plan.md): loops unrolled one step at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import rng
from pi_runtime.errors import ClueError, unknown

Number = float | str


@dataclass(frozen=True)
class Phase:
    """A part of the plan whose cost is recorded under `name`."""

    name: str
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Loop:
    """`kind` is "epochs" or "repeat"; `count` a number or the name of a scalar."""

    kind: str
    count: Number
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Batches:
    """The body once for each batch; `order` and `augment` are None where the manifest does not say."""

    size: int
    order: str | None
    augment: str | None
    body: tuple[Node, ...]


@dataclass(frozen=True)
class ResetNode:
    values: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """A program with the same ports, which runs instead where the first `zeros[VALUE]` elements of each VALUE
    are all zero."""

    program: str
    zeros: Mapping[str, int]


@dataclass(frozen=True)
class RunNode:
    """`bind` replaces what the ports named in it are joined to; the first of `instead` that may run does."""

    program: str
    bind: Mapping[str, str]
    instead: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class StopNode:
    program: str
    every: Number
    samples: int
    accuracy_at_most: Number


Node = Phase | Loop | Batches | ResetNode | RunNode | StopNode
Plan = tuple[Node, ...]


def parse(nodes: Sequence[Mapping[str, Any]]) -> Plan:
    """The nodes of a manifest that already fits the schema."""
    return tuple(_parse(node) for node in nodes)


def _parse(node: Mapping[str, Any]) -> Node:
    if "phase" in node:
        return Phase(node["phase"], parse(node["body"]))
    if "reset" in node:
        return ResetNode(tuple(node["reset"]))
    if "run" in node:
        variants = (Variant(each["run"], dict(each["zeros"])) for each in node.get("instead", ()))
        return RunNode(node["run"], dict(node.get("bind", {})), tuple(variants))
    if "stop" in node:
        return StopNode(**node["stop"])
    if node["loop"] == "batches":
        return Batches(node["size"], node.get("order"), node.get("augment"), parse(node["body"]))
    return Loop(node["loop"], node["count"], parse(node["body"]))


def leaves(nodes: Sequence[Node], phase: str = "") -> Iterator[tuple[str, ResetNode | RunNode | StopNode]]:
    """Each reset, run and stop as it stands in the plan, once, with the phase that it stands in."""
    for node in nodes:
        if isinstance(node, Phase | Loop | Batches):
            yield from leaves(node.body, node.name if isinstance(node, Phase) else phase)
        else:
            yield phase, node


@dataclass(frozen=True)
class Place:
    """Where in the plan an operation stands: what its random numbers, samples and cost depend on.

    `repeat` counts the iterations of the enclosing repeats; `positions` is the current batch, int64 [B]
    positions in the request's list of samples, None outside of batches.
    """

    phase: str = ""
    epoch: int = 0
    repeat: int = 0
    positions: NDArray[np.int64] | None = None
    augment: bool = False


@dataclass(frozen=True)
class Run:
    number: int
    place: Place
    node: RunNode


@dataclass(frozen=True)
class Reset:
    number: int
    place: Place
    node: ResetNode


@dataclass(frozen=True)
class Stop:
    """`due`: the accuracy is to be measured; when it is low enough the next operation is `leave_to`."""

    number: int
    place: Place
    node: StopNode
    due: bool
    leave_to: int


Operation = Run | Reset | Stop


def resolve(number: Number, scalars: Mapping[str, float]) -> float:
    """A number as it stands, or the scalar of that name. Raises ClueError for an unknown or infinite one."""
    if isinstance(number, str):
        if number not in scalars:
            raise unknown("scalar", number, scalars)
        number = scalars[number]
    if not math.isfinite(number):
        raise ClueError(f"a count or limit of the plan is {number}: it must be finite")
    return float(number)


def whole(number: Number, scalars: Mapping[str, float]) -> int:
    """`resolve`, rounded to the nearest whole number, halves up; never below 0."""
    return max(0, math.floor(resolve(number, scalars) + 0.5))


def total(plan: Sequence[Node], n: int, scalars: Mapping[str, float]) -> int:
    """How many operations the plan has for `n` samples when no stop is taken."""
    return sum(_size(node, n, scalars, None) for node in plan)


def _iterations(node: Loop | Batches, n: int, scalars: Mapping[str, float], outer: int | None) -> int:
    if isinstance(node, Loop):
        return whole(node.count, scalars)
    return -(-n // node.size) if outer is None else outer // node.size


def _size(node: Node, n: int, scalars: Mapping[str, float], outer: int | None) -> int:
    """The number of operations in a node; `outer` is the size of the enclosing batch."""
    if isinstance(node, ResetNode | RunNode | StopNode):
        return 1
    inner = node.size if isinstance(node, Batches) else outer
    body = sum(_size(child, n, scalars, inner) for child in node.body)
    return body if isinstance(node, Phase) else body * _iterations(node, n, scalars, outer)


def epoch_end(plan: Plan, n: int, scalars: Mapping[str, float], cursor: int) -> int | None:
    """Whether an epoch of an outermost epochs loop ends before operation `cursor`: there a checkpoint goes.

    Then the number of the operation after all epochs of this loop, else None.
    """
    left = _operations_left(plan, n, scalars, None, cursor)
    return None if left is None else cursor + left


def _operations_left(
    nodes: Sequence[Node], n: int, scalars: Mapping[str, float], outer: int | None, done: int
) -> int | None:
    """When an epoch ends after `done` operations of these nodes: how many its loop has left."""
    for node in nodes:
        size = _size(node, n, scalars, outer)
        if done > size:
            done -= size
            continue
        if not (size and done):
            return None
        match node:
            case Phase():
                return _operations_left(node.body, n, scalars, outer, done)
            case Loop() | Batches():
                body = size // _iterations(node, n, scalars, outer)
                if isinstance(node, Loop) and node.kind == "epochs":
                    return None if done % body else size - done
                inner = node.size if isinstance(node, Batches) else outer
                return _operations_left(node.body, n, scalars, inner, (done - 1) % body + 1)
            case _:
                return None
    return None


def operations(
    plan: Plan, n: int, scalars: Mapping[str, float], seed: int, start: int = 0
) -> Iterator[Operation]:
    """The operations from number `start` on, made one at a time; memory does not grow with their number."""
    return _Walk(n, scalars, seed, start).body(plan, Place(), 0, _Within())


@dataclass(frozen=True)
class _Within:
    """What only the walk needs to know of the enclosing loops.

    `leave_to` is the operation after the outermost epochs loop, `reached` the number of times that this place
    was reached before within the current epoch.
    """

    leave_to: int | None = None
    reached: int = 0


class _Walk:
    def __init__(self, n: int, scalars: Mapping[str, float], seed: int, start: int) -> None:
        self.n, self.scalars, self.seed, self.start = n, scalars, seed, start
        self.shuffled: tuple[int, NDArray[np.int64]] | None = None

    def order(self, kind: str, epoch: int) -> NDArray[np.int64]:
        if kind == "stored":
            return np.arange(self.n, dtype=np.int64)
        if self.shuffled is None or self.shuffled[0] != epoch:
            self.shuffled = (epoch, rng.permutation(self.seed, epoch, self.n).astype(np.int64))
        return self.shuffled[1]

    def body(self, nodes: Plan, place: Place, number: int, within: _Within) -> Iterator[Operation]:
        for node in nodes:
            outer = None if place.positions is None else len(place.positions)
            size = _size(node, self.n, self.scalars, outer)
            if size and number + size > self.start:
                yield from self.node(node, place, number, within, size)
            number += size

    def node(self, node: Node, place: Place, number: int, within: _Within, size: int) -> Iterator[Operation]:
        match node:
            case RunNode():
                yield Run(number, place, node)
            case ResetNode():
                yield Reset(number, place, node)
            case StopNode():
                every = whole(node.every, self.scalars)
                due = every > 0 and (within.reached + 1) % every == 0
                assert within.leave_to is not None  # the bundle's checks: a stop stands in an epochs loop
                yield Stop(number, place, node, due, within.leave_to)
            case Phase():
                yield from self.body(node.body, dataclasses.replace(place, phase=node.name), number, within)
            case Loop() | Batches():
                yield from self.loop(node, place, number, within, size)

    def loop(
        self, node: Loop | Batches, place: Place, number: int, within: _Within, size: int
    ) -> Iterator[Operation]:
        outer = None if place.positions is None else len(place.positions)
        count = _iterations(node, self.n, self.scalars, outer)
        body = size // count
        for i in range(max(0, (self.start - number) // body), count):
            inside = dataclasses.replace(within, reached=within.reached * count + i)
            if isinstance(node, Batches):
                here = self.batch(node, place, i)
            elif node.kind == "repeat":
                here = dataclasses.replace(place, repeat=place.repeat * count + i)
            else:
                here = dataclasses.replace(place, epoch=i)
                end = number + size if within.leave_to is None else within.leave_to
                inside = _Within(leave_to=end)
            yield from self.body(node.body, here, number + i * body, inside)

    def batch(self, node: Batches, place: Place, i: int) -> Place:
        rows = np.arange(i * node.size, (i + 1) * node.size)
        if place.positions is not None:
            return dataclasses.replace(place, positions=place.positions[rows])
        order = self.order(node.order or "shuffled", place.epoch)
        return dataclasses.replace(place, positions=order[rows % self.n], augment=node.augment == "crop_flip")
