"""Planned memory against numbers worked out by hand, for a graph and by a runtime's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clue_mobile.lowering import lower
from clue_mobile.memory.liveness import plan
from clue_mobile.memory.rules import GRAPH, aten

# bytes: a vector of 256 float32 numbers is 1024


def _split(x: Tensor) -> tuple[Tensor, ...]:
    a, b = x.sin().split([64, 192])
    return a.exp().sum(), b.exp().sum()


@pytest.mark.parametrize(
    ("function", "peak"),
    [
        (lambda x: (x.sin(),), 2048),
        (
            lambda x: (x.sin().cos().exp(),),
            4096,
        ),  # input and result stay, one intermediate dies as the next is made
        (lambda x: (x.sin() + x.cos(),), 4096),
        (lambda x: (x.sin(), x.cos()), 3072),  # results stay
        (lambda x: (x.sin().reshape(16, 16).cos(),), 3072),  # views are free, and keep their source alive
        (lambda x: (x.reshape(16, 16).t().sin(),), 3072),  # a transpose is none
        (lambda x: (x * torch.arange(256.0),), 2048),  # constants are part of the file
        (lambda x: (x.sum(), x.max()), 1024 + 8),
        (lambda x: (x.sin().sum() + x.cos().sum(),), 1024 + 1024 + 4 + 4 + 4),
        (_split, 3072 + 8),  # x, its sine, the two parts of it, which are counted once, and the results
    ],
)
def test_planned_peak(function: Callable[..., Any], peak: int) -> None:
    assert plan(lower(function, [torch.zeros(256)])).peak_bytes == peak


IN_PLACE = replace(GRAPH, in_place=frozenset({aten.sin.default, aten.cos.default, aten.add.Tensor}))


@pytest.mark.parametrize(
    ("function", "peak"),
    [
        (lambda x: (x.sin(),), 2048),  # an input is never written over
        (lambda x: (x.sin().cos(),), 3072),  # nor does a result go there: the caller has a place for it
        (lambda x: (x.sin().cos().exp(),), 3072),  # an intermediate is
        (lambda x: (x.sin().reshape(16, 16).cos().exp(),), 3072),  # through a view too
        (lambda x: ((x.sin() + x.cos()).exp(),), 4096),  # one of two
        (lambda x: (((y := x.sin()) + y.cos()).exp(),), 4096),  # not before its last use
        (lambda x: ((y := x.sin()), y.cos()), 3072),  # nor where it is a result
        (lambda x: (x.sin().sum().sin().exp(),), 2048 + 4 + 4),  # nor by something smaller
    ],
)
def test_results_written_over_their_arguments(function: Callable[..., Any], peak: int) -> None:
    assert plan(lower(function, [torch.zeros(256)]), IN_PLACE).peak_bytes == peak


def test_what_an_operator_works_with_counts_while_it_runs() -> None:
    rules = replace(GRAPH, workspace={aten.cos.default: lambda node: 5000})
    graph = lower(lambda x: (x.sin().cos().exp(),), [torch.zeros(256)])
    found = plan(graph, rules)
    assert (found.peak_bytes, found.ports_bytes) == (4096 + 5000, 2048)
    assert found.at is not None
    assert found.at.target is aten.cos.default


def test_a_folded_node_takes_nothing() -> None:
    rules = replace(GRAPH, fused=lambda node: node.target is aten.permute.default)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        square = x.reshape(16, 16)
        sine = square.sin()
        return torch.mm(square, sine.t()), sine.sum()

    graph = lower(function, [torch.zeros(256)])
    assert plan(graph).peak_bytes == 4096 + 4
    assert plan(graph, rules).peak_bytes == 3072 + 4
