"""Chosen forms inside a whole forward and backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lowering_case import assert_close, assert_forward_only, draw, gradient_function, operators
from torch import nn
from torch.fx import GraphModule

from clue_mobile.lowering import lower
from clue_mobile.lowering.choice import overrides
from clue_mobile.lowering.forms import Geometry

aten = torch.ops.aten


def lowered(module: nn.Module, forms: dict[str, str], base: Any = None, *shape: int) -> GraphModule:
    """The module's forward and backward pass with these forms, checked against autograd."""
    module = module.double()
    seen: list[tuple[str, Geometry]] = []

    def choose(product: str, at: Geometry) -> str | None:
        seen.append((product, at))
        return forms.get(product)

    x = draw(*shape)
    inputs = [x, draw(*module(x).shape, seed=2), *(p.detach() for p in module.parameters())]
    function = gradient_function(module)
    graph = lower(function, [torch.zeros_like(t) for t in inputs], overrides=overrides(choose, base or {}))
    assert_forward_only(graph)
    assert_close(graph(*inputs), function(*inputs))
    assert seen
    return graph


@pytest.mark.parametrize("forward", ["convolution", "winograd", "row_copies"])
@pytest.mark.parametrize("backward", [("convolution", "flat"), ("folded", "shifts"), ("winograd", "swapped")])
def test_a_network_of_chosen_forms(forward: str, backward: tuple[str, str]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1, bias=False)
    )
    forms = {"forward": forward, "input_gradient": backward[0], "weight_gradient": backward[1]}
    lowered(network, forms, None, 2, 3, 6, 5)


def test_a_form_that_shares_its_columns() -> None:
    """The forward pass and the weight gradient by `batched`: one concatenation serves both."""
    forms = {"forward": "batched", "weight_gradient": "batched"}
    graph = lowered(nn.Conv2d(3, 4, 3, 2, 1, bias=False), forms, None, 2, 3, 7, 5)
    assert operators(graph)["cat"] == 1
    assert operators(graph)["bmm"] == 2


def test_nothing_chosen_is_the_exporters_own() -> None:
    def mine(*args: Any) -> Any:
        return aten.mul.Scalar(aten.relu(args[0]), 2.0)

    at = [torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 1, 1)]

    def function(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.conv2d(x, weight),)

    table = overrides(lambda product, geometry: None, {aten.convolution.default: mine})
    assert operators(lower(function, at, overrides=table)) == {"relu": 1, "mul": 1}
    table = overrides(lambda product, geometry: "pointwise", {aten.convolution.default: mine})
    assert operators(lower(function, at, overrides=table))["bmm"] == 1


def test_a_transposed_layer_stays_what_it_was() -> None:
    forms = {"forward": "pointwise", "input_gradient": "folded", "weight_gradient": "flat"}
    module = nn.ConvTranspose2d(3, 4, 3, 2, 1, bias=False).double()
    inputs = [draw(2, 3, 5, 4), draw(2, 4, 9, 7, seed=2), module.weight.detach()]
    function = gradient_function(module)

    def choose(product: str, at: Geometry) -> str | None:
        return "convolution" if product == "forward" else forms[product]

    graph = lower(function, [torch.zeros_like(t) for t in inputs], overrides=overrides(choose, {}))
    assert_close(graph(*inputs), function(*inputs))
