"""Convolutions in Core ML's form: equal to PyTorch's, and within what the operator's documentation allows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from coreml_case import assert_same, convert_one, operators, run, traced
from coreml_case import draw as normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from clue_mobile.lowering import lower
from exporters import coreml_forms

aten = torch.ops.aten
PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def layers(draw: Any, axes: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer, transposed or not, and an input shape that it takes."""

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, dilation, stride = per_axis(1, 3), per_axis(1, 3), per_axis(1, 3)
    padding = per_axis(0, 2)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if draw(st.booleans()):
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        # PyTorch wants a result of at least one element
        least = [
            max(1, -(-(1 + 2 * p - span - e) // s) + 1)
            for p, span, e, s in zip(padding, spans, extra, stride, strict=True)
        ]
        layer = TRANSPOSED[axes](
            *channels, kernel, stride, padding, extra, groups, draw(st.booleans()), dilation
        )
    else:
        least = [max(1, span - 2 * p) for span, p in zip(spans, padding, strict=True)]
        layer = PLAIN[axes](*channels, kernel, stride, padding, dilation, groups, draw(st.booleans()))
    size = tuple(low + draw(st.integers(0, 4)) for low in least)
    return layer.double(), (draw(st.integers(1, 2)), channels[0], *size)


@pytest.mark.parametrize("axes", [1, 2, 3])
@settings(max_examples=15)
@given(data=st.data())
def test_equals_pytorch(axes: int, data: st.DataObject) -> None:
    layer, shape = data.draw(layers(axes))
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return (functional_call(layer, dict(zip(names, state, strict=True)), (x,)),)

    inputs = [normal(*shape).double(), *(p.detach() for p in layer.parameters())]
    graph = lower(function, inputs, overrides=coreml_forms.TABLE)
    for node in graph.graph.nodes:
        if node.target is aten.convolution.default:
            _, _, _, _, _, dilation, transposed, *_ = node.args
            assert not transposed
            assert set(dilation) == {1}
        assert not isinstance(node.meta.get("val"), Tensor) or node.meta["val"].dim() <= 5
    (found,), (expected,) = graph(*inputs), function(*inputs)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


GRADIENTS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "padded": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 5)),
    "strided": (nn.Conv2d(3, 4, 3, 2, 1), (2, 3, 6, 7)),
    "strided by one": (nn.Conv2d(3, 4, 1, 2), (2, 3, 6, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, 1, 1, groups=2), (2, 4, 5, 4)),
    "depthwise": (nn.Conv2d(4, 4, 3, 2, 1, groups=4), (2, 4, 6, 6)),
    "dilated": (nn.Conv2d(2, 3, 3, 1, 2, 2), (1, 2, 7, 6)),
    "of one axis": (nn.Conv1d(3, 4, 5, 2, 2), (2, 3, 9)),
    "of three axes": (nn.Conv3d(2, 3, 3, (1, 2, 1), 1), (1, 2, 4, 5, 4)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_every_gradient_through_a_saved_package(name: str, tmp_path: Path) -> None:
    layer, shape = GRADIENTS[name]
    names = [key for key, _ in layer.named_parameters()]

    def function(x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in (x, *state)]
        y = functional_call(layer, dict(zip(names, leaves[1:], strict=True)), (leaves[0],))
        return (y.detach(), *torch.autograd.grad((y * y).sum(), leaves))

    inputs = [normal(*shape), *(normal(*p.shape, seed=1) for p in layer.parameters())]
    package = convert_one(traced(function, *inputs), tmp_path)
    assert "conv_transpose" not in operators(package)
    assert_same(run(package, inputs), function(*inputs), rtol=1e-4, atol=1e-4)


def test_an_ordinary_gradient_leaves_padding_to_the_operator() -> None:
    def function(g: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return (aten.convolution(g, weight, None, [1, 1], [1, 1], [1, 1], True, [0, 0], 1),)

    graph = lower(function, [normal(2, 4, 6, 6), normal(4, 3, 3, 3)], overrides=coreml_forms.TABLE)
    called = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    assert called["aten.convolution.default"] == called["aten.flip.default"] == 1
    assert not called["aten.constant_pad_nd.default"]
    assert not called["aten.slice.Tensor"]
