"""A roofline of a Raspberry Pi 5: how long a list of nodes takes on it within stated assumptions.

A node takes the longer of its arithmetic and its traffic; nodes follow one another. All of it is prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """`count` nodes alike: kind (dense, grouped or other), FLOPs and bytes of each."""

    kind: str
    flops: int
    bytes: int
    count: int = 1


@dataclass(frozen=True)
class Machine:
    """peak: float32 FLOP/s of all cores; lanes x 2 (multiply and add) x pipes x Hz x cores."""

    cores: int
    hertz: float
    pipes: int
    lanes: int

    @property
    def peak(self) -> float:
        """FLOP/s."""
        return self.cores * self.hertz * self.pipes * self.lanes * 2


@dataclass(frozen=True)
class Assumptions:
    """Shares of the peak that dense and grouped products reach, and the memory's bytes/s.

    cached: bytes that a node may touch without any of them coming from memory (0: all come from there).
    """

    dense: float
    grouped: float
    bandwidth: float
    cached: int


# BCM2712: 4 Cortex-A76 at 2.4 GHz with two 128-bit multiply-add pipes each; 2 MiB of L3; 32-bit LPDDR4X-4267
PI5 = Machine(cores=4, hertz=2.4e9, pipes=2, lanes=4)
L3 = 2 * 2**20
OPTIMISTIC = Assumptions(dense=0.70, grouped=0.15, bandwidth=17e9, cached=L3)
PESSIMISTIC = Assumptions(dense=0.30, grouped=0.03, bandwidth=10e9, cached=0)


def seconds(nodes: Sequence[Work], machine: Machine, given: Assumptions) -> float:
    """Predicted time of one run."""
    total = 0.0
    for node in nodes:
        share = given.grouped if node.kind == "grouped" else given.dense
        arithmetic = node.flops / (machine.peak * share)
        traffic = node.bytes / given.bandwidth if node.bytes > given.cached else 0.0
        total += node.count * max(arithmetic, traffic)
    return total


def totals(nodes: Sequence[Work]) -> tuple[int, int]:
    """FLOPs and bytes of all nodes."""
    return sum(n.flops * n.count for n in nodes), sum(n.bytes * n.count for n in nodes)
