"""The forms for XNNPACK equal autograd in double, as PyTorch runs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executorch_case import Function
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.nn import functional as F

from clue_mobile.lowering import lower
from exporters.executorch_forms import OVERRIDES

LAYERS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MOST_AXES = 6  # the delegate's


def check(module: nn.Module, *shape: int, tolerance: float = 1e-10) -> GraphModule:
    """Lower forward and backward pass of `module` in double and compare them with autograd."""
    torch.manual_seed(0)
    module = module.double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    names = [name for name, _ in module.named_parameters()]

    def function(x: Tensor, cotangent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in (x, *state)]
        output = functional_call(module, dict(zip(names, leaves[1:], strict=True)), (leaves[0],))
        return output.detach(), *torch.autograd.grad(output, leaves, cotangent)

    x = torch.randn(shape, dtype=torch.float64)
    inputs = [x, torch.randn_like(module(x)), *(p.detach() for p in module.parameters())]
    graph = lower(function, inputs, overrides=OVERRIDES)
    for found, expected in zip(graph(*inputs), function(*inputs), strict=True):
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))
    for node in graph.graph.nodes:
        assert "convolution" not in str(node.target)
        value = node.meta.get("val")
        assert not isinstance(value, Tensor) or value.dim() <= MOST_AXES, node.format_node()
    return graph


@st.composite
def convolutions(draw: Any, axes: int) -> tuple[nn.Module, tuple[int, ...]]:
    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, dilation, padding = per_axis(1, 3), per_axis(1, 2), per_axis(0, 2)
    stride = (1,) * axes if draw(st.booleans()) else per_axis(1, 3)
    if draw(st.booleans()) and draw(st.booleans()):
        stride, padding, dilation = kernel, (0,) * axes, (1,) * axes  # patches
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(1, s - 2 * p) + draw(st.integers(0, 4)) for s, p in zip(spans, padding, strict=True))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    group_in, group_out = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layer = LAYERS[axes](
        groups * group_in, groups * group_out, kernel, stride, padding, dilation, groups, draw(st.booleans())
    )
    return layer, (draw(st.integers(1, 3)), groups * group_in, *size)


@pytest.mark.parametrize("axes", [1, 2, 3])
@given(data=st.data())
def test_convolution(axes: int, data: st.DataObject) -> None:
    layer, shape = data.draw(convolutions(axes))
    check(layer, *shape)


test_convolution = pytest.mark.filterwarnings("ignore")(test_convolution)


@pytest.mark.parametrize("layer", [
    nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, (3, 1), padding=(4, 0)),
    nn.Conv2d(4, 8, 3, padding=2, dilation=2),
    nn.Conv2d(2, 9, 3, padding=1), nn.Conv2d(9, 2, 3), nn.Conv2d(6, 6, 3, 2, 1, groups=6),
    nn.Conv2d(6, 12, 3, 1, 1, groups=6), nn.Conv2d(6, 6, 5, 1, 2, groups=6), nn.Conv2d(4, 6, 1),
    nn.Conv2d(4, 6, 1, 2), nn.Conv2d(3, 5, 4, 4), nn.Conv2d(4, 4, 3, 2, 1, groups=2),
])  # fmt: skip
def test_each_form(layer: nn.Module) -> None:
    check(layer, 2, layer.in_channels, 9, 10)  # type: ignore[arg-type]


def test_stride_one_unfolds_the_columns_of_the_kernel_alone() -> None:
    graph = check(nn.Conv2d(8, 8, 3, padding=1, bias=False), 2, 8, 6, 6)
    products = [n.meta["val"].shape for n in graph.graph.nodes if "bmm" in str(n.target)]
    assert products == [(2, 24, 48), (2, 24, 48), (2, 24, 24)]


@pytest.mark.parametrize("layer", [
    nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), nn.ConvTranspose2d(4, 4, 3, padding=1),
    nn.ConvTranspose1d(4, 6, 4, 2, groups=2), nn.ConvTranspose2d(4, 3, 2, 2),
])  # fmt: skip
def test_transposed_convolution_forward(layer: nn.Module) -> None:
    layer = layer.double()
    x = torch.randn(2, 4, *([5] * (layer.weight.dim() - 2)), dtype=torch.float64)  # type: ignore[operator]
    inputs = [x, layer.weight.detach(), layer.bias.detach()]  # type: ignore[union-attr, operator]

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return (functional_call(layer, {"weight": weight, "bias": bias}, (x,)),)

    found = lower(function, inputs, overrides=OVERRIDES)(*inputs)
    torch.testing.assert_close(found[0], function(*inputs)[0])


class Activation(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(3 * x)


@pytest.mark.parametrize(("function", "tolerance"), [
    (F.gelu, 1e-6), (lambda x: F.gelu(x, approximate="tanh"), 1e-10), (torch.erf, 1e-6),
])  # fmt: skip
def test_error_function(function: Any, tolerance: float) -> None:
    check(Activation(function), 5, 40, tolerance=tolerance)


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(affine: bool) -> None:
    graph = check(nn.LayerNorm((4, 3), elementwise_affine=affine), 2, 5, 4, 3)
    assert not any("layer_norm" in str(node.target) for node in graph.graph.nodes)
