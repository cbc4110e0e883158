"""Element-wise operators on the pieces of a vector become one on the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lowering_case import draw, operators
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from clue_mobile.lowering import passes

V = draw(7).abs() + 0.5
WITHOUT = [name for name in passes.DEFAULT if name != "concats"]


def _moved(x: Tensor, means: Tensor) -> tuple[Tensor]:
    """Running statistics as the tracer writes them."""
    sizes = [2, 4, 1]
    old, new = x.split(sizes), means.split(sizes)
    parts = [a * 0.9 + b * (0.1 * n / (n - 0.5)) for a, b, n in zip(old, new, sizes, strict=True)]
    return (torch.cat(parts),)


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (_moved, {"mul": 2, "add": 1}),
        (lambda x, y: (torch.cat([x[:3] + y[:3], x[3:] + y[3:]]),), {"add": 1}),
        (lambda x, y: (torch.cat([x[:3].clamp_min(1), x[3:].clamp_min(1)]),), {"clamp_min": 1}),
        (lambda x, y: (torch.cat([x[:3], x[3:]]) * 2,), {"mul": 1}),
        (lambda x, y: (torch.cat([x[:3].sqrt(), y[3:].sqrt()]),), {"slice": 2, "cat": 1, "sqrt": 1}),
        # not the whole in order
        (lambda x, y: (torch.cat([x[3:], x[:3]]),), {"slice": 2, "cat": 1}),
        (lambda x, y: (torch.cat([x[:3], x[4:]]),), {"slice": 2, "cat": 1}),
        # different operators, a broadcast, limits that differ
        (lambda x, y: (torch.cat([x[:3] + 1, x[3:] * 2]),), {"slice": 2, "cat": 1, "add": 1, "mul": 1}),
        (
            lambda x, y: (torch.cat([x[:3] * y[:1], x[3:] * y[3:]]),),
            {"slice": 4, "mul": 2, "cat": 1},
        ),
        (
            lambda x, y: (torch.cat([x[:3].clamp_min(1), x[3:].clamp_min(2)]),),
            {"slice": 2, "clamp_min": 2, "cat": 1},
        ),
    ],
)
def test_sinks(function: Callable[..., Any], left: dict[str, int]) -> None:
    y = V.flip(0)
    table = {torch.ops.aten.split_with_sizes.default: _slices}
    graph = passes.clean(make_fx(function, decomposition_table=table, tracing_mode="fake")(V, y))
    torch.testing.assert_close(graph(V, y)[0], function(V, y)[0], rtol=1e-14, atol=0)
    assert dict(operators(graph)) == left


def _slices(x: Tensor, sizes: list[int], dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(x.narrow(dim, sum(sizes[:i]), size) for i, size in enumerate(sizes))


def test_matrices_stay() -> None:
    graph = passes.clean(
        make_fx(lambda x: (torch.cat([x[:1] + 1, x[1:] + 1]),), tracing_mode="fake")(draw(3, 2))
    )
    assert operators(graph)["cat"] == 1
    assert operators(graph)["add"] == 2


def test_without_it_the_pieces_stay() -> None:
    table = {torch.ops.aten.split_with_sizes.default: _slices}
    made = make_fx(_moved, decomposition_table=table, tracing_mode="fake")(V, V)
    assert operators(passes.clean(made, passes=WITHOUT))["mul"] == 6
