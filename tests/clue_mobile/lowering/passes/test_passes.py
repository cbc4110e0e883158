"""Clean-up passes: each on the smallest graph that shows it, its results unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lowering_case import draw, operators
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from clue_mobile.lowering import lower, passes


def cleaned(function: Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """The function's graph after `clean`; checks that it computes the same."""
    graph = passes.clean(make_fx(function, tracing_mode="fake")(*inputs))
    got, want = graph(*inputs), function(*inputs)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert torch.equal(a, b)
    return graph


X = draw(2, 3, 4)


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda x: (x.view(6, 4).view(24).view(4, 6),), {"reshape": 1}),
        (lambda x: (x.unsqueeze(0).squeeze(0).view(6, 4),), {"reshape": 1}),
        (lambda x: (x.view(6, 4).view(2, 3, 4) + 1,), {"add": 1}),
        (lambda x: (x.transpose(0, 1).transpose(1, 0) + 1,), {"add": 1}),
        (lambda x: (x.transpose(0, 1).transpose(1, 2),), {"permute": 1}),
        (lambda x: (x.permute(2, 0, 1).permute(-2, -1, 0) + 1,), {"add": 1}),
        (lambda x: (x[0].t().t() + x[0],), {"select": 1, "add": 1}),
        (lambda x: (x[:, :1].transpose(0, 1).reshape(2, 4),), {"slice": 1, "reshape": 1}),
        (lambda x: (x.transpose(0, 1).reshape(6, 4),), {"permute": 1, "reshape": 1}),
        (lambda x: (x.as_strided((6, 4), (4, 1)) + 1,), {"reshape": 1, "add": 1}),
        (lambda x: (x.as_strided((2, 3, 4, 1), (12, 4, 1, 7)).cos(),), {"reshape": 1, "cos": 1}),
        (lambda x: (x.as_strided((4, 6), (1, 4)),), {"as_strided": 1}),
        (lambda x: (x.as_strided((2, 3), (3, 1)),), {"as_strided": 1}),
        (lambda x: (x.transpose(0, 1).as_strided((6, 4), (4, 1)),), {"permute": 1, "as_strided": 1}),
        (
            lambda x: (x.cos().as_strided_scatter(x[0] + x[1], (3, 4), (4, 1)),),
            {"cos": 1, "as_strided_scatter": 1, "select": 2, "add": 1},
        ),
        (lambda x: (x.cos().as_strided_scatter(x.view(6, 4), (6, 4), (4, 1)),), {}),
        (lambda x: (x.clone().detach().contiguous() + 1,), {"add": 1}),
        (lambda x: (x.expand(2, 3, 4)[:, 0:3].double() + 1,), {"add": 1}),
        (lambda x: (x.to(torch.float32) * 1,), {"_to_copy": 1}),
        (lambda x: (x * 1 / 1.0,), {}),
        (lambda x: (x * 2 / 2.0,), {"mul": 1, "div": 1}),
        (lambda x: (F.relu(F.relu(x)),), {"relu": 1}),
        (lambda x: (x.sin() + x.sin() * 2, x.sin()), {"sin": 1, "mul": 1, "add": 1}),
        (lambda x: (x.sum(1), x.sum(2)), {"sum": 2}),
        (lambda x: (x + 1, x.cos() * 0 + x)[:1], {"add": 1}),
        (lambda x: (x + torch.ones_like(x[0, 0]) * 3,), {"add": 1}),
        (lambda x: (x * torch.arange(4, dtype=x.dtype).cos(),), {"mul": 1}),
        (lambda x: (x.masked_fill(torch.ones(3, 4).triu().bool(), 2.0),), {"masked_fill": 1}),
    ],
)
def test_folds(function: Callable[..., Any], left: dict[str, int]) -> None:
    assert dict(operators(cleaned(function, X))) == left


def test_large_and_random_values_are_no_constants() -> None:
    assert operators(cleaned(lambda x: (x + torch.zeros(2000, 3, 4),), draw(2000, 3, 4)))["zeros"] == 1
    torch.manual_seed(0)
    graph = passes.clean(make_fx(lambda x: (x + torch.rand(4),), tracing_mode="fake")(X))
    assert operators(graph)["rand"] == 1


def test_a_write_becomes_the_value_written() -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.aten.copy(x, y), torch.ops.aten.copy(x, y[0, 0])

    assert dict(operators(cleaned(function, X, X + 1))) == {"select": 2, "expand": 1}


def test_max_pooling_keeps_its_indices_only_where_they_are_read() -> None:
    x = draw(1, 2, 4, 4)
    values = cleaned(lambda x: (F.max_pool2d(x, 2, return_indices=True)[0],), x)
    both = cleaned(lambda x: F.max_pool2d(x, 2, return_indices=True), x)
    assert dict(operators(values)) == {"max_pool2d": 1}
    assert operators(both)["max_pool2d_with_indices"] == 1


def test_every_node_keeps_its_shape_on_record() -> None:
    graph = cleaned(lambda x: (x.transpose(0, 1).reshape(6, 4) * torch.ones(4, dtype=x.dtype),), X)
    for node in graph.graph.nodes:
        if node.op != "output":
            assert isinstance(node.meta["val"], Tensor)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: (x.transpose(0, 1) @ w,),
        lambda x, w: (x.transpose(0, 1) @ w[None],),
        lambda x, w: (x.reshape(2, 3, 1, 4).transpose(0, 1) @ w,),
        lambda x, w: (torch.bmm(x, w.expand(2, 4, 5)),),
    ],
)
def test_a_product_with_one_matrix_repeated_is_one_product(function: Callable[..., Any]) -> None:
    x, w = draw(2, 3, 4), draw(4, 5)
    graph = passes.clean(make_fx(function, tracing_mode="fake")(x, w))
    torch.testing.assert_close(graph(x, w), function(x, w), rtol=1e-12, atol=1e-12)
    found = operators(graph)
    assert "expand" not in found
    assert "bmm" not in found
    assert found["mm"] == 1


def test_products_of_different_matrices_stay() -> None:
    graph = cleaned(lambda x: (torch.bmm(x, x[:1, 0].expand(2, 4).reshape(2, 4, 1)),), X)
    assert operators(graph)["bmm"] == 1


def test_an_exporters_convolutions_are_spelled_behind_the_passes_that_look_at_them() -> None:
    """A runtime's form of a convolution also gets what `frozen_norm` made."""
    seen = []

    def form(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Any:
        seen.append(bias is not None)
        product = torch.einsum("nchw,oc->nohw", x, weight[:, :, 0, 0])
        return product if bias is None else product + bias.reshape(1, -1, 1, 1)

    def function(x: Tensor, w: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor]:
        return (F.batch_norm(F.conv2d(x, w), mean, var),)

    inputs = [draw(2, 3, 4, 4), draw(5, 3, 1, 1), draw(5), draw(5).abs() + 0.1]
    graph = lower(function, inputs, overrides={torch.ops.aten.convolution.default: form})
    torch.testing.assert_close(graph(*inputs)[0], function(*inputs)[0], rtol=0, atol=1e-12)
    assert seen == [True]
    assert "convolution" not in operators(graph)


@pytest.mark.parametrize("name", passes.PASSES)
def test_each_pass_can_be_left_out(name: str) -> None:
    def function(x: Tensor, w: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
        leaf = w.detach().clone().requires_grad_()
        output = F.relu(F.batch_norm(F.conv2d(x, leaf), mean, var))
        return torch.autograd.grad((output * output).sum(), [leaf])

    inputs = [draw(2, 3, 5, 5), draw(4, 3, 3, 3), draw(4), draw(4).abs() + 0.1]
    graph = lower(function, inputs, passes=[other for other in passes.PASSES if other != name])
    torch.testing.assert_close(graph(*inputs)[0], function(*inputs)[0], rtol=0, atol=1e-11)
