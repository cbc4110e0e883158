"""Activations and softmax, with their kinks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import Apply, check, draw, draw_ties, examples, operators
from torch import Tensor, nn


def kinks(*shape: int) -> Tensor:
    """Normal values, with -3, 0, 1, 3 and 6, where piecewise activations have their corners, among them."""
    x = 3 * draw(*shape).reshape(-1)
    x[:5] = torch.tensor([-3, 0, 1, 3, 6])
    return x.reshape(shape)


WITHOUT_SELECT: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": partial(F.hardtanh, min_val=-3.0, max_val=1.0),
    "hardswish": F.hardswish,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
WITH_SELECT: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "threshold": partial(F.threshold, threshold=1.0, value=-2.0),
    "threshold_zero": partial(F.threshold, threshold=0.0, value=-2.0),
    "clamp": partial(torch.clamp, min=-3.0, max=1.0),
    "prelu": lambda x: F.prelu(x, torch.full((3,), 0.2, dtype=x.dtype)),
}


@pytest.mark.parametrize("name", WITHOUT_SELECT)
def test_without_comparisons(name: str) -> None:
    found = operators(check(Apply(WITHOUT_SELECT[name]), 2, 3, 5, source=kinks))
    assert not {"where", "gt", "ge", "le", "lt", "eq", "logical_and", "bitwise_or"} & set(found), found


@pytest.mark.parametrize("name", WITH_SELECT)
def test_with_comparisons(name: str) -> None:
    check(Apply(WITH_SELECT[name]), 2, 3, 5, source=kinks)


def test_hardsigmoid() -> None:
    # PyTorch's kernel takes 1/6 in float32 whatever the tensor's type is
    check(Apply(F.hardsigmoid), 2, 3, 5, source=kinks, tolerance=1e-7)


def test_relu_in_place_behind_a_sum() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(self.relu(self.fc(x)))
            y += x
            return self.relu(y)

    graph = check(Block(), 3, 4)
    assert operators(graph)["relu"] == 2
    assert operators(graph)["sign"] == 2


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
@examples(max_examples=10)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), dim=st.integers(0, 3))
def test_softmax(function: Callable[[Tensor, int], Tensor], shape: list[int], dim: int) -> None:
    check(Apply(lambda x: function(x, dim % len(shape))), *shape)


def test_softmax_of_large_values_stays_finite() -> None:
    check(Apply(lambda x: F.log_softmax(x, 1)), 3, 4, source=lambda *s: 400 * draw_ties(*s))
