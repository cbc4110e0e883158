"""Each operator of the table runs on the delegate and gives what PyTorch gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executorch_case import Function, close, convert, draw, run, step_of, traced
from torch import nn
from torch.nn import functional as F

from exporters.base import Converted

A, B = (3, 4, 5), (4, 1)

OPERATORS: dict[str, tuple[Function, tuple[tuple[int, ...], ...]]] = {
    "arithmetic": (
        lambda x, y: (x + y, x - 2 * y, x * y, x / (y.abs() + 1), 3 - x, 2 / (x.abs() + 1)),
        (A, B),
    ),
    "factors": (lambda x, y: (torch.add(x, y, alpha=2), torch.sub(x, y, alpha=0.5)), (A, B)),
    "unary": (
        lambda x: (x.abs(), x.ceil(), x.cos(), x.exp(), x.floor(), -x, x.sigmoid(), x.sin(), x.tanh()),
        (A,),
    ),
    "positive": (lambda x: tuple(f(x.abs() + 0.1) for f in (torch.log, torch.rsqrt, torch.sqrt)), (A,)),
    "powers": (
        lambda x: (x**2, x**3, x.abs() ** 0.5, (x.abs() + 1) ** -0.5, (x.abs() + 1).reciprocal()),
        (A,),
    ),
    "activations": (
        lambda x: (x.relu(), F.gelu(x), F.relu6(3 * x), F.leaky_relu(x, 0.2), F.silu(x), F.hardswish(x)),
        (A,),
    ),
    "extremes": (
        lambda x, y: (torch.maximum(x, y), torch.minimum(x, y), x.clamp(-0.5, 0.5), x.clamp_min(0.2)),
        (A, B),
    ),
    "signs": (lambda x: (x.sign(), x.relu().sign(), (1e-30 * x).sign()), (A,)),
    "conditions": (
        lambda x, y: (
            (x > y).float(),
            (x < 0).float(),
            (x >= y).float(),
            (x <= y).float(),
            (x == x.relu()).float(),
            ((x > y) & (x < 1) | (y > x + 1)).float(),
            torch.where(x > y, x, y + 0 * x),
            torch.where(x > 0, x, 0.0),
            (~(x > 0)).float(),
        ),
        (A, B),
    ),
    "sums": (
        lambda x: (x.sum(), x.sum(1), x.sum((0, 2)), x.mean(), x.mean(-1, keepdim=True), x.mean((1, 2))),
        (A,),
    ),
    "long sums": (lambda x: (x.sum(), x.mean(0), x.mean(1), x[:, :1000].sum(1)), ((2, 4099),)),
    "largest": (lambda x: (x.amax(1), x.amax((0, 2), keepdim=True), x.amax()), (A,)),
    "softmax": (lambda x: (x.softmax(-1), x.softmax(1), (50 * x).log_softmax(1), x.log_softmax(-1)), (A,)),
    "views": (
        lambda x: (x.reshape(20, 3) + 1, x.permute(2, 0, 1) * 2, x[1] + 1, x[:, -1] + 1, x.unsqueeze(1) + 1),
        (A,),
    ),
    "slices": (
        lambda x: (x[1:, 1:3] + 1, x[:, ::2] * 2, x[..., 1::3] + 1, x[:, 1:][:, 1:3, 2:] + 1, x[-1:] + 1),
        (A,),
    ),
    "joins": (
        lambda x, y: (
            torch.cat([x, x + 1], 1),
            torch.cat([x * i for i in range(13)], 2),
            torch.stack([x, x]),
        ),
        (A, B),
    ),
    "pads": (lambda x: (F.pad(x, (1, 2, 0, 1)), F.pad(x, (0, 0, 1, 1), value=-2.0)), (A,)),
    "repeats": (
        lambda x, y: (
            y.expand(3, 4, 5) + 0 * x,
            torch.cat([y.expand(4, 5), y.expand(4, 5)]),
            y.t().expand(2, 3, 4).exp(),
        ),
        (A, B),
    ),
    "fills": (
        lambda x: (
            torch.zeros_like(x) + 1,
            torch.cat([x, torch.full((3, 4, 2000), 2.5)], 2),
            x.new_ones(70, 80) * x.sum(),
        ),
        (A,),
    ),
    "products": (
        lambda x, y: (
            x @ y,
            x.t() @ x,
            x @ x.t(),
            torch.addmm(y[0], x, y),
            torch.stack([x, x]) @ torch.stack([y, y]),
            torch.stack([x, x]) @ torch.stack([x, x]).transpose(1, 2),
            torch.bmm(x.expand(2, 6, 7), torch.stack([y, y])),
        ),
        ((6, 7), (7, 3)),
    ),
    "max pools": (
        lambda x: (
            F.max_pool2d(x, 2),
            F.max_pool2d(x, 3, 2, 1),
            F.max_pool2d(x, 3, 2, ceil_mode=True),
            F.max_pool2d(x, 2, 1, dilation=2),
        ),
        ((2, 3, 8, 9),),
    ),
    "mean pools": (
        lambda x: (
            F.avg_pool2d(x, 2),
            F.avg_pool2d(x, 3, 2, 1),
            F.adaptive_avg_pool2d(x, 1),
            F.adaptive_avg_pool2d(x, (3, 2)),
        ),
        ((2, 3, 8, 9),),
    ),
}

LAYERS: dict[str, tuple[Any, tuple[int, ...], bool]] = {
    "conv": (nn.Conv2d(4, 4, 3, padding=1), (2, 4, 6, 7), False),
    "conv stride": (nn.Conv2d(3, 5, 3, 2, 1), (2, 3, 7, 6), False),
    "conv groups": (nn.Conv2d(4, 6, 3, 1, 1, groups=2), (2, 4, 5, 5), False),
    "conv depthwise": (nn.Conv2d(4, 4, 3, 2, 1, groups=4), (2, 4, 7, 7), False),
    "conv patches": (nn.Conv2d(3, 6, 4, 4), (2, 3, 8, 8), False),
    "conv 1d": (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9), False),
    "batch norm, batch": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), (4, 3, 5, 5), True),
    "batch norm, frozen": (nn.BatchNorm2d(3), (4, 3, 5, 5), False),
    "layer norm": (nn.LayerNorm(12), (4, 3, 12), False),
    "linear, gelu": (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), (4, 5, 6), False),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), (2, 5, 8), False),
    "max pool": (nn.MaxPool2d(3, 2, 1), (2, 3, 8, 8), False),
    "mean pool": (nn.AvgPool2d(2), (2, 3, 8, 8), False),
}


@pytest.fixture(scope="module")
def file() -> Converted:
    programs = [traced(fn, *shapes, name=name) for name, (fn, shapes) in OPERATORS.items()]
    for name, (module, shape, training) in LAYERS.items():
        function, inputs = step_of(module, *shape, training=training)
        programs.append(traced(function, *(t.shape for t in inputs), name=name))
    return convert(*programs)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(file: Converted, name: str) -> None:
    function, shapes = OPERATORS[name]
    assert file.reports[name] == {"delegated_flops": 1.0, "partitions": 1, "portable": {}}
    inputs = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    close(run(file, name, *inputs), function(*inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_forward_and_backward(file: Converted, name: str) -> None:
    module, shape, training = LAYERS[name]
    function, inputs = step_of(module, *shape, training=training)
    assert file.reports[name] == {"delegated_flops": 1.0, "partitions": 1, "portable": {}}
    close(run(file, name, *inputs), function(*inputs))


def test_a_sum_of_many_terms_is_not_naive(file: Converted) -> None:
    def mean(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x.mean(), x.mean((0, 2, 3)))

    x = draw(32, 4, 32, 32) + 10  # a naive sum of 32,768 such numbers is wrong by 1e-4
    converted = convert(traced(mean, x.shape))
    close(run(converted, "p", x), [t.float() for t in mean(x.double())], 1e-6)
