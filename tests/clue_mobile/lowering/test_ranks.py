"""Permutations of many axes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import Apply, check, examples, operators
from torch import Tensor

from clue_mobile.lowering import ranks


@st.composite
def permutations(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=8)))
    return shape, tuple(draw(st.permutations(range(len(shape)))))


@examples(max_examples=60)
@given(case=permutations(), most=st.integers(4, 5))
def test_the_steps_permute(case: tuple[tuple[int, ...], tuple[int, ...]], most: int) -> None:
    shape, order = case
    x = torch.arange(torch.Size(shape).numel()).reshape(shape)
    y = x
    for size, step in ranks.steps(shape, order, most):
        assert len(size) <= most
        y = y.reshape(size).permute(step)
    assert torch.equal(y.reshape(-1), x.permute(order).reshape(-1))


@pytest.mark.parametrize(("order", "most"), [
    ((0, 1, 3, 2, 4, 5), 1),  # the windows of Swin
    ((0, 2, 4, 1, 3, 5), 2),  # the windows of MaxViT
    ((0, 2, 4, 3, 5, 1), 2),  # its grid
    ((5, 4, 3, 2, 1, 0), 2),
])  # fmt: skip
def test_few_steps_do(order: tuple[int, ...], most: int) -> None:
    assert len(ranks.steps((2, 4, 7, 8, 7, 8), order)) <= most


@examples(max_examples=6)
@given(order=st.permutations(range(6)))
def test_windows_have_rank_five_at_most(order: list[int]) -> None:
    def cut(x: Tensor) -> Tensor:
        windows = x.reshape(2, 2, 2, 2, 2, 3).permute(order).reshape(-1, 6)
        return torch.sin(windows)

    found = operators(check(Apply(cut), 2, 4, 4, 3))
    assert found["permute"] <= 4
