"""Views: slices, selections, pads, shortcuts and sums around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import Apply, check, examples, operators
from torch import Tensor

bounds = st.one_of(st.none(), st.integers(-7, 7))


@examples(max_examples=30)
@given(size=st.integers(1, 6), start=bounds, stop=bounds, step=st.integers(1, 3), dim=st.integers(0, 2))
def test_slices(size: int, start: int | None, stop: int | None, step: int, dim: int) -> None:
    cut = slice(start, stop, step)
    if not range(size)[cut]:
        return
    shape = [2, 3, 2]
    shape[dim] = size
    index = tuple(cut if axis == dim else slice(None) for axis in range(3))
    check(Apply(lambda x: x[index]), *shape)


@examples(max_examples=15)
@given(pads=st.lists(st.integers(-1, 2), min_size=2, max_size=6).filter(lambda p: len(p) % 2 == 0))
def test_pads_of_either_sign(pads: list[int]) -> None:
    check(Apply(lambda x: F.pad(x, pads, value=0.5)), 3, 3, 4)


@pytest.mark.parametrize("index", [0, 2, -1])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_select(dim: int, index: int) -> None:
    check(Apply(lambda x: x.select(dim, index)), 3, 4, 3)


def _option_a(x: Tensor) -> Tensor:
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))


def _set_slices(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0, ::2] = 0
    y[:, 1] += x[:, 0]
    return y


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "shortcut of the CIFAR ResNets": _option_a,
    "residual": lambda x: x + F.relu(x) + x,
    "cat": lambda x: torch.cat([x, x[:, :1], 2 * x], 1),
    "stack": lambda x: torch.stack([x, x * x], 2)[:, :, 1] + torch.stack([x, x.sin()], -1)[..., 0],
    "chunk": lambda x: torch.cat([a * b for a, b in zip(x.chunk(2, 1), x.chunk(2, 1)[::-1], strict=True)], 1),
    "split": lambda x: x.split([1, 3], 1)[1],
    "split evenly": lambda x: x.split(4, -1)[0].sum() * x.split(4, -1)[1],
    "unbind": lambda x: x.unbind(1)[1] * x.unbind(-3)[2],
    "flatten and permute": lambda x: x.flatten(2).transpose(1, 2),
    "expand": lambda x: x.mean((2, 3), keepdim=True).expand_as(x) * x,
    "mean": lambda x: x.mean((2, 3)),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "flip": lambda x: x.flip(3) * x,
    "circular pad": lambda x: F.pad(x, (1, 1, 2, 0), mode="circular"),
    "reflecting pad": lambda x: F.pad(x, (1, 1, 2, 0), mode="reflect"),
    "writes into slices": _set_slices,
    "writes in place": lambda x: x.clone().mul_(2).add_(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_views_and_sums(name: str) -> None:
    found = operators(check(Apply(FUNCTIONS[name]), 2, 4, 4, 6))
    assert not {"split", "split_with_sizes", "unbind", "stack"} & set(found)


def test_an_even_strided_slice_needs_one_pad_for_each_axis() -> None:
    found = operators(check(Apply(lambda x: x[:, :, ::2, ::2]), 2, 3, 4, 6))
    assert found["constant_pad_nd"] == 2
    assert found["slice"] == 2


def test_the_backward_of_a_pad_is_a_slice() -> None:
    found = operators(check(Apply(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2))), 2, 3, 4, 6))
    assert (found["constant_pad_nd"], found["slice"]) == (1, 1)
