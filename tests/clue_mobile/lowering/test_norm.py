"""Batch norm in its three modes, layer, group and instance norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import check, draw, examples, operators
from torch import nn

from clue_mobile.errors import ClueError
from clue_mobile.lowering import lower

BATCH_NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@pytest.mark.parametrize("training", [True, False], ids=["batch", "frozen"])
@examples(max_examples=25)
@given(
    axes=st.integers(0, 3),
    channels=st.integers(1, 4),
    affine=st.booleans(),
    momentum=st.sampled_from([0.1, 0.9]),
    tracked=st.booleans(),
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=3),
)
def test_batch_norm_equals_autograd(
    training: bool, axes: int, channels: int, affine: bool, momentum: float, tracked: bool, sizes: list[int]
) -> None:
    layer = BATCH_NORMS[max(axes, 1)](
        channels, eps=1e-3, momentum=momentum, affine=affine, track_running_stats=tracked
    )
    # in training mode the outputs include the running statistics
    graph = check(layer, 2, channels, *sizes[:axes], training=training)
    outputs = next(n for n in graph.graph.nodes if n.op == "output").args[0]
    assert len(outputs) == 2 + 2 * affine + 2 * (tracked and training)


def test_batch_statistics_with_the_running_ones_kept_leave_no_trace_of_them() -> None:
    def function(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()
        output = nn.functional.batch_norm(leaf, mean.clone(), var.clone(), training=True)
        return torch.autograd.grad((output * x).sum(), [leaf])

    inputs = [draw(4, 3, 2, 2), draw(3), draw(3).abs()]
    graph = lower(function, inputs)
    assert all(not n.users for n in list(graph.graph.nodes)[1:3])
    torch.testing.assert_close(graph(*inputs)[0], function(*inputs)[0], rtol=0, atol=1e-12)


def test_running_statistics_cost_two_operators_of_the_size_of_x() -> None:
    graph = check(nn.BatchNorm2d(3).requires_grad_(False), 4, 3, 5, 5)
    forward = lower(lambda x, w, b, m, v: (nn.functional.batch_norm(x, m, v, w, b),), [
        draw(4, 3, 5, 5), *(draw(3).abs() for _ in range(4))
    ])  # fmt: skip
    large = [n for n in forward.graph.nodes if n.op == "call_function" and n.meta["val"].dim() == 4]
    assert [str(n.target) for n in large if n.meta["val"].numel() > 3] == [
        "aten.mul.Tensor",
        "aten.add.Tensor",
    ]
    assert operators(graph)["native_batch_norm"] == 0


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_value_per_channel_is_refused(shape: tuple[int, ...]) -> None:
    layer = nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)

    def function(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = {"running_mean": mean.clone(), "running_var": var.clone()}
        return (torch.func.functional_call(layer.train(), tensors, (x,)),)

    with pytest.raises(ClueError, match=r"1 value per channel.*larger --batch, or frozen statistics"):
        lower(function, [torch.zeros(shape), torch.zeros(3), torch.ones(3)])


def test_one_value_per_channel_is_refused_below_the_layer_too() -> None:
    def function(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.batch_norm(x, None, None, mean.clone(), var.clone(), True, 0.1, 1e-5, False),)

    with pytest.raises(ClueError, match="more than one value per channel: use a larger --batch"):
        lower(function, [torch.zeros(1, 3), torch.zeros(3), torch.ones(3)])


@examples(max_examples=20)
@given(
    outer=st.lists(st.integers(1, 4), min_size=0, max_size=2),
    inner=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    affine=st.booleans(),
    bias=st.booleans(),
)
def test_layer_norm_equals_autograd(outer: list[int], inner: list[int], affine: bool, bias: bool) -> None:
    check(nn.LayerNorm(inner, eps=1e-3, elementwise_affine=affine, bias=bias), *outer, *inner)


@examples(max_examples=25)
@given(
    groups=st.integers(1, 3),
    each=st.integers(1, 3),
    affine=st.booleans(),
    inner=st.lists(st.integers(1, 4), max_size=3),
)
def test_group_norm_equals_autograd(groups: int, each: int, affine: bool, inner: list[int]) -> None:
    graph = check(nn.GroupNorm(groups, groups * each, eps=1e-3, affine=affine), 2, groups * each, *inner)
    assert operators(graph)["native_group_norm"] == 0


def test_group_norm_of_channels_last_and_without_batch_statistics() -> None:
    graph = check(nn.GroupNorm(2, 4), 2, 4, 3, 2)
    assert operators(graph)["mean"] == 4  # two in each direction: normalised values are shared
    assert len(graph.graph.nodes) <= 35


INSTANCE_NORMS: dict[int, Any] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@examples(max_examples=15)
@given(axes=st.integers(1, 3), channels=st.integers(1, 3), affine=st.booleans(), tracked=st.booleans())
def test_instance_norm_equals_autograd(axes: int, channels: int, affine: bool, tracked: bool) -> None:
    layer = INSTANCE_NORMS[axes](channels, eps=1e-3, affine=affine, track_running_stats=tracked)
    check(layer, 2, channels, *[3, 2, 4][:axes])
