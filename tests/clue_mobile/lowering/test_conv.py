"""Convolution: input, weight and bias gradients over kernels, strides, paddings, dilations and groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import check, draw, examples, operators
from torch import nn

from clue_mobile.lowering import lower

LAYERS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw: Any, axes: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer and an input shape that it takes, with or without a tail that no window touches."""

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, dilation = per_axis(1, 3), per_axis(1, 2)
    same = draw(st.booleans()) and draw(st.booleans())
    stride = (1,) * axes if same else per_axis(1, 3)
    padding: Any = "same" if same else per_axis(0, 2)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [
        1 if same else max(1, s - 2 * p) for s, p in zip(spans, padding if not same else spans, strict=True)
    ]
    size = tuple(low + draw(st.integers(0, 4)) for low in least)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    group_in, group_out = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layer = LAYERS[axes](
        groups * group_in, groups * group_out, kernel, stride, padding, dilation, groups, draw(st.booleans())
    )
    return layer, (draw(st.integers(1, 3)), groups * group_in, *size)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("axes", [1, 2, 3])
@examples(max_examples=20)
@given(data=st.data())
def test_equals_autograd(axes: int, data: st.DataObject) -> None:
    layer, shape = data.draw(convolutions(axes))
    check(layer, *shape)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(stride: int, multiplier: int) -> None:
    graph = check(nn.Conv2d(4, 4 * multiplier, 5, stride, 2, groups=4, bias=False), 2, 4, 7, 6)
    (product,) = (n for n in graph.graph.nodes if str(n.target) == "aten.bmm.default")
    copies = (5, 5 * multiplier) if stride == 1 else (25, multiplier)
    assert tuple(product.meta["val"].shape) == (4, *copies)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(8, 4, 3, padding=1), (6, 5)),
        (nn.Conv2d(8, 4, 3, padding=2, dilation=2), (2, 3)),  # taps that lie in the padding alone
        (nn.Conv2d(8, 2, (3, 5), padding=(0, 2)), (6, 5)),
        (nn.Conv2d(8, 2, (3, 2), (1, 2), (2, 0)), (4, 7)),
        (nn.Conv3d(6, 2, 3, padding=1), (3, 4, 3)),
        (nn.Conv1d(9, 2, 5, padding=2), (8,)),
    ],
)
def test_wide_layers_move_the_gradient_along_the_first_axis(layer: Any, size: tuple[int, ...]) -> None:
    graph = check(layer, 2, layer.in_channels, *size)
    product = next(n for n in graph.graph.nodes if str(n.target) == "aten.mm.default")
    assert product.meta["val"].shape[1] == layer.kernel_size[0] * layer.out_channels


def test_strided_or_narrow_layers_unfold_the_input_alone() -> None:
    for layer in (nn.Conv2d(8, 4, 3, 2, 1), nn.Conv2d(1, 16, 3, padding=1)):
        graph = check(layer, 2, layer.in_channels, 6, 6)
        product = next(n for n in graph.graph.nodes if str(n.target) == "aten.mm.default")
        assert tuple(product.meta["val"].shape) == (9 * layer.in_channels, layer.out_channels)


def test_a_tail_that_no_window_touches_has_no_gradient() -> None:
    graph = check(nn.Conv2d(2, 3, 2, 3, bias=False), 1, 2, 7, 7)
    inputs = [draw(*n.meta["val"].shape) for n in graph.graph.nodes if n.op == "placeholder"]
    assert not graph(*inputs)[1][:, :, 5:].any()


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_frozen_tensors_cost_nothing(frozen: str) -> None:
    def function(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaf = (bias if frozen == "weight" else weight).detach().clone().requires_grad_()
        pair = (weight, leaf) if frozen == "weight" else (leaf, bias)
        return torch.autograd.grad(torch.conv2d(x, *pair).pow(2).sum(), [leaf])

    graph = lower(function, [draw(2, 3, 5, 5), draw(4, 3, 3, 3), draw(4)])
    assert operators(graph)["mm"] == (frozen == "bias")
    assert operators(graph)["convolution"] == 1


TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def transposed(draw: Any, axes: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A transposed layer and an input shape that it takes; the output padding may exceed the stride."""

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation = per_axis(1, 3), per_axis(1, 3), per_axis(1, 3)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    size = per_axis(1, 4)
    whole = [
        (n - 1) * s + d * (k - 1) + 1 + o
        for n, s, d, k, o in zip(size, stride, dilation, kernel, more, strict=True)
    ]
    padding = tuple(draw(st.integers(0, min(2, (w - 1) // 2))) for w in whole)
    groups = draw(st.sampled_from([1, 1, 2]))
    group_in, group_out = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layer = TRANSPOSED[axes](
        groups * group_in, groups * group_out, kernel, stride, padding, more, groups, draw(st.booleans()),
        dilation,
    )  # fmt: skip
    return layer, (draw(st.integers(1, 2)), groups * group_in, *size)


@pytest.mark.parametrize("axes", [1, 2, 3])
@examples(max_examples=15)
@given(data=st.data())
def test_transposed_convolution_equals_autograd(axes: int, data: st.DataObject) -> None:
    layer, shape = data.draw(transposed(axes))
    check(layer, *shape)
