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
    "elu": partial(F.elu, alpha=0.7),
    "celu": partial(F.celu, alpha=0.7),
    "selu": F.selu,
    "hardshrink": partial(F.hardshrink, lambd=1.0),
    "softshrink": partial(F.softshrink, lambd=1.0),
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "prelu": lambda x: F.prelu(x, torch.full((3,), 0.2, dtype=x.dtype)),
    "elu in place": lambda x: F.elu(x * 2, inplace=True),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
WITH_SELECT: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": F.softplus,
    "softplus of two": partial(F.softplus, beta=2.0, threshold=2.0),
    "threshold": partial(F.threshold, threshold=1.0, value=-2.0),
    "threshold_zero": partial(F.threshold, threshold=0.0, value=-2.0),
    "clamp": partial(torch.clamp, min=-3.0, max=1.0),
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


@examples(max_examples=15)
@given(
    outer=st.integers(1, 3),
    channels=st.integers(1, 4),
    inner=st.lists(st.integers(1, 3), max_size=3),
    shared=st.booleans(),
)
def test_prelu_and_its_weight(outer: int, channels: int, inner: list[int], shared: bool) -> None:
    check(nn.PReLU(1 if shared else channels), outer, channels, *inner, source=draw_ties)


@examples(max_examples=15)
@given(name=st.sampled_from(["silu", "hardswish", "mish", "elu", "gelu", "glu"]), seed=st.integers(0, 99))
def test_far_from_zero_too(name: str, seed: int) -> None:
    function = {**WITHOUT_SELECT, "glu": lambda x: F.glu(x, 1)}[name]
    check(Apply(function), 2, 4, 3, source=lambda *shape: 30 * draw(*shape, seed=seed))


@pytest.mark.parametrize("layer", [nn.ReLU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.ReLU6, nn.LeakyReLU])
def test_in_place_layers_equal_those_that_are_not(layer: Callable[..., nn.Module]) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.act = layer(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.act(self.norm(x))
            y = y.mul(0.5).add_(x).sub_(1)
            y[:, 0] = 2 * x[:, 1]
            return self.act(y)

    check(Pair(), 3, 4, tolerance=1e-7 if layer is nn.Hardsigmoid else 1e-10)
