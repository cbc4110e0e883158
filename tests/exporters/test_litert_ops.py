"""Each operator as LiteRT runs it against eager PyTorch, with weights that are inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from litert_case import assert_equal, draw, operators
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten


def with_gradients(fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """fn's result, and the gradient of a function of it with respect to each input."""

    def program(*inputs: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in inputs]
        y = fn(*leaves)
        return (y.detach(), *torch.autograd.grad((y * torch.sigmoid(y)).sum(), leaves))

    return program


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3 as a product": ((2, 8, 6, 5), (4, 8, 3, 3), {"padding": 1}),
    "no padding": ((2, 8, 6, 5), (4, 8, 3, 3), {}),
    "few channels": ((2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1}),
    "1x1": ((2, 8, 4, 5), (6, 8, 1, 1), {}),
    "1x1, stride 2": ((2, 8, 5, 4), (6, 8, 1, 1), {"stride": 2}),
    "1x1, padded": ((2, 8, 4, 4), (6, 8, 1, 1), {"padding": 1}),
    "stride 2": ((2, 8, 6, 7), (4, 8, 3, 3), {"padding": 1, "stride": 2}),
    "stride 2, few channels": ((2, 3, 6, 7), (4, 3, 3, 3), {"padding": 1, "stride": 2}),
    "stride (1, 2)": ((2, 8, 6, 6), (4, 8, 3, 3), {"padding": 1, "stride": (1, 2)}),
    "stride 3 with a rest": ((1, 8, 9, 9), (4, 8, 2, 2), {"stride": 3}),
    "7x7, stride 2": ((1, 3, 12, 12), (4, 3, 7, 7), {"padding": 3, "stride": 2}),
    "1x5": ((2, 8, 4, 7), (4, 8, 1, 5), {"padding": (0, 2)}),
    "5x1": ((2, 8, 7, 4), (4, 8, 5, 1), {"padding": (2, 0)}),
    "even kernel": ((2, 8, 6, 6), (4, 8, 2, 4), {"padding": (1, 2)}),
    "dilation": ((2, 8, 9, 9), (4, 8, 3, 3), {"padding": 2, "dilation": 2}),
    "dilation, few channels": ((2, 3, 9, 9), (4, 3, 3, 3), {"padding": 2, "dilation": 2}),
    "dilation and stride": ((2, 8, 9, 9), (4, 8, 3, 3), {"padding": 2, "dilation": 2, "stride": 2}),
    "depthwise": ((2, 6, 5, 6), (6, 1, 3, 3), {"padding": 1, "groups": 6}),
    "depthwise, stride 2": ((2, 6, 7, 8), (6, 1, 3, 3), {"padding": 1, "groups": 6, "stride": 2}),
    "depthwise, dilation": ((2, 6, 8, 8), (6, 1, 3, 3), {"padding": 2, "groups": 6, "dilation": 2}),
    "depthwise, multiplier": ((2, 4, 5, 5), (8, 1, 3, 3), {"padding": 1, "groups": 4}),
    "groups": ((2, 16, 5, 5), (6, 8, 3, 3), {"padding": 1, "groups": 2}),
    "groups, stride 2": ((2, 6, 6, 6), (9, 2, 3, 3), {"padding": 1, "groups": 3, "stride": 2}),
    "one image": ((1, 8, 4, 4), (4, 8, 3, 3), {"padding": 1}),
    "one pixel left": ((2, 8, 3, 3), (4, 8, 3, 3), {}),
    "more images than a block holds": ((6, 8, 30, 30), (2, 8, 3, 3), {"padding": 1}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    x, weight, options = CONVOLUTIONS[name]
    bias = draw(weight[0], seed=2)
    assert_equal(
        with_gradients(lambda x, w, b: F.conv2d(x, w, b, **options)), draw(*x), draw(*weight, seed=1), bias
    )


@pytest.mark.parametrize(("x", "weight", "options"), [
    ((2, 4, 9), (6, 4, 3), {"padding": 1}),
    ((2, 8, 9), (6, 8, 3), {"padding": 2, "dilation": 2}),
    ((2, 4, 9), (6, 4, 3), {"padding": 1, "stride": 2}),
    ((2, 4, 9), (4, 1, 3), {"padding": 1, "groups": 4}),
])  # fmt: skip
def test_convolution_of_sequences(x: Any, weight: Any, options: Any) -> None:
    assert_equal(with_gradients(lambda x, w: F.conv1d(x, w, **options)), draw(*x), draw(*weight, seed=1))


@pytest.mark.parametrize(("x", "weight", "options"), [
    ((2, 3, 4, 5, 4), (4, 3, 3, 3, 3), {"padding": 1}),
    ((1, 3, 5, 5, 5), (4, 3, 3, 3, 3), {"padding": 1, "stride": 2}),
    ((2, 4, 4, 4, 4), (4, 2, 1, 3, 3), {"groups": 2}),
])  # fmt: skip
def test_convolution_of_volumes(x: Any, weight: Any, options: Any) -> None:
    assert_equal(with_gradients(lambda x, w: F.conv3d(x, w, **options)), draw(*x), draw(*weight, seed=1))


@pytest.mark.parametrize(("x", "weight", "options"), [
    ((2, 8, 5, 4), (8, 4, 3, 3), {}),
    ((2, 8, 5, 4), (8, 4, 3, 3), {"stride": 2}),
    ((2, 8, 5, 4), (8, 4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 8, 5, 5), (8, 4, 2, 2), {"stride": 3, "output_padding": 2}),
    ((2, 8, 5, 4), (8, 4, 3, 3), {"padding": 2}),
    ((2, 8, 5, 5), (8, 4, 3, 3), {"padding": 3}),
    ((2, 8, 5, 5), (8, 4, 1, 1), {"stride": 2}),
    ((2, 8, 5, 5), (8, 4, 3, 3), {"dilation": 2, "padding": 1}),
    ((2, 8, 5, 5), (8, 4, 3, 3), {"dilation": 2, "stride": 2}),
    ((2, 8, 5, 5), (8, 3, 3, 3), {"groups": 2, "stride": 2, "padding": 1}),
    ((2, 8, 5, 5), (8, 1, 3, 3), {"groups": 8, "stride": 2, "padding": 1}),
    ((2, 8, 5, 5), (8, 2, 3, 3), {"groups": 8, "padding": 1}),
])  # fmt: skip
def test_transposed_convolution(x: Any, weight: Any, options: Any) -> None:
    assert_equal(lambda x, w: (F.conv_transpose2d(x, w, **options),), draw(*x), draw(*weight, seed=1))


def test_the_forms_are_those_that_xnnpack_runs() -> None:
    fn = with_gradients(lambda x, w: F.conv2d(x, w, padding=1))
    names = operators(assert_equal(fn, draw(2, 8, 6, 6), draw(8, 8, 3, 3)))
    assert "CONV_2D" not in names
    assert "TRANSPOSE_CONV" not in names
    assert names.count("BATCH_MATMUL") == 3
    # what PyTorch's layout costs at the four ports with images or kernels, and the kernel's for each product
    assert names.count("TRANSPOSE") <= 8


POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "abs": torch.abs,
    "sign": torch.sign,
    "neg": torch.neg,
    "erf": torch.erf,
    "gelu": F.gelu,
    "silu": F.silu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "relu6": F.relu6,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "log": lambda x: torch.log(x.abs() + 1),
    "sqrt": lambda x: torch.sqrt(x.abs() + 1),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "square": lambda x: x**2,
    "cube": lambda x: (x.abs() + 1) ** 3,
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp_min": lambda x: x.clamp_min(0.1),
    "rsub": lambda x: 2 - x,
    "alpha": lambda x: torch.add(x, x, alpha=3),
    "div": lambda x: x / 3,
    "scalar first": lambda x: 1 / (x.abs() + 1),
    "floor": torch.floor,
    "where": lambda x: torch.where(x > 0.2, x, -x),
    "masked": lambda x: x * (x <= 0.3).float(),
    "max": lambda x: torch.maximum(x, -x),
    "min": lambda x: torch.minimum(x, 2 * x),
    "both": lambda x: ((x > -1) & (x < 1)).float(),
    "either": lambda x: ((x < -1) | (x >= 1)).float(),
    "not": lambda x: (~(x == x)).float(),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(name: str) -> None:
    fn = POINTWISE[name]
    assert_equal(lambda x: (fn(x),), torch.cat([draw(3, 16), torch.zeros(3, 1)], 1))


@pytest.mark.parametrize("fn", [F.gelu, F.silu, F.hardswish, torch.relu, F.relu6, torch.sigmoid])
def test_gradients_of_activations(fn: Callable[[Tensor], Tensor]) -> None:
    assert_equal(with_gradients(fn), 3 * draw(4, 5, 3, 3))


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "permute": lambda x: x.permute(3, 1, 0, 2),
    "permute and reshape": lambda x: x.permute(0, 2, 3, 1).reshape(-1, 3),
    "reshape mixes axes": lambda x: x.transpose(1, 2).reshape(3, -1) + 1,
    "reshape splits": lambda x: x.reshape(2, 3, 2, 2, 5).permute(0, 3, 1, 2, 4).reshape(4, -1),
    "flatten": lambda x: x.flatten(1),
    "unsqueeze": lambda x: x.unsqueeze(2) * 2,
    "slices": lambda x: x[:, 1:, 1:4:2, ::3],
    "negative slice": lambda x: x[..., -2:],
    "select": lambda x: x[:, 1],
    "cat": lambda x: torch.cat([x, x + 1, x.relu()], 1),
    "cat of orders": lambda x: torch.cat([x.permute(0, 1, 3, 2), (x * 2).permute(0, 1, 3, 2)], 2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad with a value": lambda x: F.pad(x, (1, 0), value=-3.0),
    "expand": lambda x: x[:, :1].expand(2, 3, 4, 5),
    "expand for a sum": lambda x: x + x[:, :1].expand(2, 3, 4, 5),
    "sum": lambda x: x.sum(),
    "sum of axes": lambda x: x.sum([0, 2]),
    "mean kept": lambda x: x.mean([0, 2, 3], True),
    "mean": lambda x: x.mean(1),
    "amax": lambda x: x.amax(3),
    "amin": lambda x: x.amin([1, 2], True),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "norm": lambda x: (x.flatten(1) ** 2).sum(1).sqrt(),
    "broadcast of a row": lambda x: x * x[0, 0, 0],
    "channels": lambda x: x * x.mean([0, 2, 3]).reshape(1, 3, 1, 1),
    "full": lambda x: x + torch.full((5,), 2.0),
    "zeros": lambda x: torch.cat([x, torch.zeros(2, 1, 4, 5)], 1),
    "layer norm": lambda x: F.layer_norm(x, (4, 5)),
    "count": lambda x: (x > 0).sum().float(),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_shapes(name: str, channels_last: bool) -> None:
    """Also on a value that a convolution has left with its channels last."""
    fn = SHAPES[name]

    def program(x: Tensor) -> tuple[Tensor, ...]:
        return (fn(F.conv2d(x, torch.eye(3).reshape(3, 3, 1, 1)) if channels_last else x),)

    assert_equal(program, draw(2, 3, 4, 5))


@pytest.mark.parametrize(("a", "b"), [
    ((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((2, 2, 3, 4), (2, 2, 4, 5)),
])  # fmt: skip
def test_products(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = draw(*a), draw(*b, seed=1)

    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = x @ y
        return z, z.transpose(-1, -2) @ x if x.dim() == y.dim() else z, (x.relu() + 1).transpose(-1, -2) @ z

    assert_equal(fn, x, y)


def test_linear_with_its_gradients() -> None:
    assert_equal(with_gradients(F.linear), draw(5, 4), draw(3, 4, seed=1), draw(3, seed=2))
    assert_equal(lambda b, x, w: (torch.addmm(b, x, w, beta=2, alpha=0.5),), draw(3), draw(5, 4), draw(4, 3))


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: F.max_pool2d(x, 2),
    "max, overlapping": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max, same": lambda x: F.max_pool2d(x, 3, 1, 1),
    "max, ceil": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "avg": lambda x: F.avg_pool2d(x, 2),
    "avg, padded": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg, padding not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg, ceil": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
    "avg, divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive, uneven": lambda x: F.adaptive_avg_pool2d(x, 2),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    assert_equal(with_gradients(POOLS[name]), draw(2, 3, 7, 9) - 2)


def test_attention() -> None:
    def fn(x: Tensor, w: Tensor) -> Tensor:
        q, k, v = (x @ w).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 8)

    assert_equal(with_gradients(fn), draw(2, 5, 8), draw(8, 24, seed=1))


def test_batch_norm_in_training() -> None:
    def fn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, training=True)

    assert_equal(with_gradients(fn), draw(4, 3, 5, 5), draw(3, seed=1), draw(3, seed=2), tolerance=1e-5)
