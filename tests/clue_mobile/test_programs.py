"""Programs: what is built and traced; FLOPs against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from clue_mobile import programs
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import lower
from clue_mobile.memory.flops import count_flops
from clue_mobile.methods import clue
from clue_mobile.models import BUILTIN, load


@pytest.fixture(scope="module")
def model() -> FlatModel:
    spec = BUILTIN["digits_cnn"].spec
    return FlatModel(load(spec, None), spec)


def test_build_adds_the_serving_programs(model: FlatModel) -> None:
    recipe = programs.build(model, "clue", clue.Config(saliency_batch=8), 4)
    assert [(p.name, p.batch) for p in recipe.programs] == [
        ("predict", 4), ("predict_1", 1), ("saliency", 4), ("mask", 4), ("teacher", 4), ("step", 4),
    ]  # fmt: skip
    predict = recipe.programs[0]
    assert [p.name for p in predict.inputs] == ["params", "buffers", "x"]
    assert predict.inputs[-1].shape == (4, 1, 8, 8)
    assert [(p.name, p.role, p.shape) for p in predict.outputs] == [("logits", "result", (4, 10))]


def test_traced_programs_run_as_the_function_does(model: FlatModel) -> None:
    seen: list[str] = []
    traced = programs.trace_all(programs.predict_programs(model, 2), progress=seen.append)
    assert seen == ["predict", "predict_1"]
    for one in traced:
        inputs = [*model.pack().values(), torch.rand(one.program.inputs[-1].shape)]
        torch.testing.assert_close(one(*inputs), one.program.fn(*inputs))
    assert traced[0].flops == 2 * traced[1].flops > 0
    assert traced[0].peak_bytes > traced[1].peak_bytes > 4 * sum(model.sizes.values())


def test_examples_have_the_shapes_of_the_ports(model: FlatModel) -> None:
    program = programs.predict_programs(model, 2)[0]
    examples = programs.example_inputs(program, torch.float64)
    assert [t.shape for t in examples] == [p.shape for p in program.inputs]
    assert {t.dtype for t in examples} == {torch.float64}


# FLOPs: 2 for each multiply-add


def _gradients(layer: Callable[..., Tensor]) -> Callable[..., Any]:
    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in tensors]
        return torch.autograd.grad(layer(*leaves).sin().sum(), leaves)

    return function


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (lambda x, w: (x @ w,), [(3, 4), (4, 5)], 2 * 3 * 4 * 5),
        (lambda x, w: (x @ w,), [(2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5),
        (lambda x, w: (nn.functional.linear(x, w, w[:, 0]),), [(2, 3, 4), (5, 4)], 2 * 6 * 4 * 5),
        (lambda x, w: (torch.conv2d(x, w, stride=2),), [(2, 3, 7, 7), (5, 3, 3, 3)], 2 * 2 * 5 * 9 * 27),
        (lambda x, w: (torch.conv2d(x, w, groups=3),), [(2, 3, 4, 4), (6, 1, 3, 3)], 2 * 2 * 6 * 4 * 9),
        (lambda x: (x + x.exp().mean() * 2,), [(4, 4)], 0),
        # forward, input gradient and weight gradient cost the same
        (
            _gradients(lambda x, w: torch.conv2d(x, w, stride=2)),
            [(2, 3, 7, 7), (5, 3, 3, 3)],
            3 * 2 * 2 * 5 * 9 * 27,
        ),
        (_gradients(torch.mm), [(3, 4), (4, 5)], 3 * 2 * 3 * 4 * 5),
    ],
)
def test_flops(function: Callable[..., Any], shapes: list[tuple[int, ...]], flops: int) -> None:
    assert count_flops(lower(function, [torch.zeros(shape) for shape in shapes])) == flops


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 6])
def test_flops_of_pytorch_s_own_gradients_of_a_convolution(groups: int, transposed: bool) -> None:
    """As the joint program for ExecuTorch has them, which does not take them apart."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(6, 12, 3, stride=2, padding=1, groups=groups)
    forward = torch.conv_transpose2d if transposed else torch.conv2d

    def gradients(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = forward(x, w, stride=2, padding=1, groups=groups)
        return torch.autograd.grad(y.sin().sum(), [x, w])

    x = torch.ones(2, 6, 9, 9, requires_grad=True)
    graph = make_fx(gradients, tracing_mode="fake")(x, layer.weight)
    positions = 9 * 9 if transposed else 5 * 5
    assert count_flops(graph) == 3 * 2 * 2 * positions * (12 * 6 * 9) // groups
