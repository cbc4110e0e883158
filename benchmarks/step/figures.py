"""The arithmetic of the table: ratios within a round, agreement of losses, a row's figures."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

TOLERANCE = 0.01  # of the first loss
LEAST_MOVE = 5 * TOLERANCE  # by less than this a loss that stands still would pass for one that agrees

Rounds = Sequence[Mapping[str, float]]
"""For each round the seconds of a step (median of the turn) by peer; one that took no part is left out."""


def ratio(rounds: Rounds, name: str, reference: str) -> float | None:
    """Median over the rounds that have both of name / reference."""
    found = [r[name] / r[reference] for r in rounds if name in r and reference in r]
    return statistics.median(found) if found else None


def median(rounds: Rounds, name: str) -> float | None:
    """Median over the rounds."""
    found = [r[name] for r in rounds if name in r]
    return statistics.median(found) if found else None


def spread(losses: Sequence[float], reference: Sequence[float]) -> list[float]:
    """For each step the largest distance so far of two runs that differ by rounding alone."""
    apart = (abs(value - wanted) for value, wanted in zip(losses, reference, strict=True))
    return list(itertools.accumulate(apart, max))


def disagreement(
    losses: Sequence[float], reference: Sequence[float], rounding: Sequence[float]
) -> str | None:
    """What is wrong with a peer's first losses; None where each is within TOLERANCE of the first one's size.

    Where rounding alone (`spread`) drives them further apart, twice that is allowed, but never more than
    half of what the reference moves at most: a loss that stands still is always wrong.

    Raises ValueError where the reference itself moves too little to tell anything.
    """
    scale = abs(reference[0])
    moved = max(abs(value - reference[0]) for value in reference)
    if moved < LEAST_MOVE * scale:
        raise ValueError(
            f"the reference's losses {_list(reference)} move by under {LEAST_MOVE:.0%}: nothing to compare"
        )
    for number, (value, wanted, apart) in enumerate(zip(losses, reference, rounding, strict=True), 1):
        allowed = min(max(TOLERANCE * scale, 2 * apart), moved / 2)
        if not math.isfinite(value) or abs(value - wanted) > allowed:
            return f"loss {number} is {value:.4f} where PyTorch has {wanted:.4f}"
    return None


def _list(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def row(
    name: str,
    wall: Rounds,
    cpu: Rounds,
    *,
    flops: float,
    gemm_flops: float,
    eager: str,
    plain: str | None,
    gemm: str,
) -> dict[str, Any]:
    """A row's figures of time. ms, ratio and the others are medians over rounds; `cpu_` in processor time
    of all threads. ratio: to eager of the same round; ratio_plain: to the same without momentum, for a peer
    that has none."""
    seconds, used = median(wall, name), median(cpu, name)
    assert seconds is not None
    assert used is not None
    slower_than_gemm = ratio(wall, name, gemm)  # of a step to a product, in the same round
    return {
        "ms": 1e3 * seconds,
        "cpu_ms": 1e3 * used,
        "rounds": sum(name in r for r in wall),
        "ratio": ratio(wall, name, eager),
        "cpu_ratio": ratio(cpu, name, eager),
        "ratio_plain": ratio(wall, name, plain) if plain else None,
        "gflops": flops / seconds / 1e9,
        "of_gemm_peak": flops / gemm_flops / slower_than_gemm if slower_than_gemm else None,
    }


def start(rounds: Sequence[Mapping[str, Mapping[str, Any]]], name: str, eager: str) -> dict[str, Any]:
    """A row's figures of fresh processes: medians, and ratios to eager PyTorch's of the same round."""
    own = [r[name] for r in rounds if name in r]
    figures: dict[str, Any] = {"memory_source": own[0]["memory_source"], "starts": len(own)}
    for key in ("start_s", "start_cpu_s", "peak_rss", "before_step", "peak_minus_before"):
        values = [{peer: answer[key] for peer, answer in r.items()} for r in rounds]
        figures[key] = statistics.median(value[key] for value in own)
        figures[f"{key}_ratio"] = None
        if all(value.get(eager, 1) > 0 for value in values):
            figures[f"{key}_ratio"] = ratio(values, name, eager)
    return figures
