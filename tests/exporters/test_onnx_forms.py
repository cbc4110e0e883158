"""ONNX Runtime's batch norm in place of the general form: through ONNX Runtime, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from clue_mobile.errors import ClueError
from clue_mobile.lowering import lower
from exporters import onnx_ops
from exporters.onnx import OPSET, OVERRIDES, PASSES


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], times: int = 1
) -> list[Tensor]:
    """The function's results in ONNX Runtime, after so many runs of one session; checks the operators."""
    graph = lower(function, inputs, overrides=OVERRIDES, passes=PASSES)
    model = onnx_ops.translate(graph, OPSET)
    if all(tensor.dim() > 2 for tensor in inputs[:1]):
        assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {f"i{number}": tensor.numpy() for number, tensor in enumerate(inputs)}
    for _ in range(times):
        found = session.run(None, feed)
    return [torch.from_numpy(array) for array in found]


def assert_same(got: Sequence[Tensor], want: Sequence[Tensor], tolerance: float = 2e-6) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, float(b.abs().max())))


def step(affine: bool) -> Callable[..., tuple[Tensor, ...]]:
    """f(x, cotangent, mean, var, weight, bias): output, gradients, new running statistics."""

    def function(
        x: Tensor, cotangent: Tensor, mean: Tensor, var: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        leaves = [t.detach().clone().requires_grad_() for t in (x, *state)]
        moved = (mean.clone(), var.clone())
        weight, bias = leaves[1:] if affine else (None, None)
        output = nn.functional.batch_norm(leaves[0], *moved, weight, bias, training=True, momentum=0.3)
        return (output.detach(), *torch.autograd.grad(output, leaves, cotangent), *moved)

    return function


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (1, 3, 2, 3), (2, 1, 7), (2, 3, 2, 3, 2), (6, 3)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_training_equals_autograd(shape: tuple[int, ...], affine: bool) -> None:
    c = shape[1]
    state = [draw(c, seed=4), draw(c, seed=5)] if affine else []
    inputs = [2 * draw(*shape) + 3, draw(*shape, seed=1), draw(c, seed=2), draw(c, seed=3).abs(), *state]
    function = step(affine)
    assert_same(run(function, inputs), function(*inputs), 2e-5)


def test_layers_of_one_size_do_not_write_over_each_other() -> None:
    """ONNX Runtime puts the new running statistics where the old ones were, whoever else reads those."""

    def function(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        def norm(z: Tensor) -> tuple[Tensor, ...]:
            return torch.ops.aten._native_batch_norm_legit.no_stats(z, w, w, True, 0.1, 1e-5)[:3]

        first, second, third = norm(x), norm(y), norm(torch.relu(x) + y)
        zeros, ones = torch.zeros(3), torch.ones(3)
        plain = torch.ops.aten._native_batch_norm_legit_no_training(x, w, w, zeros, ones, 0.0, 0.0)[0]
        return (*first, *second, *third, plain)

    inputs = [draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1) * 5 + 2, draw(3, seed=2)]
    assert_same(run(function, inputs, times=3), function(*inputs))


def test_a_constant_channel_has_variance_zero() -> None:
    inputs = [torch.full((4, 2, 3, 3), 0.1), draw(4, 2, 3, 3), torch.zeros(2), torch.ones(2)]
    inputs += [draw(2, seed=4), draw(2, seed=5)]
    function = step(True)
    got, want = run(function, inputs), function(*inputs)
    assert float(got[-1].min()) >= 0
    # 1/std is 316 there, and so many times larger is what rounding leaves of x - mean
    assert_same([got[0], *got[4:]], [want[0], *want[4:]], 1e-4)


def test_one_value_per_channel_is_refused() -> None:
    inputs = [torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), torch.zeros(2), torch.ones(2)]

    def function(x: Tensor, cotangent: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.aten._native_batch_norm_legit_functional(x, None, None, mean, var, True, 0.1, 1e-5)[
            :1
        ]

    with pytest.raises(ClueError, match="larger --batch, or frozen statistics"):
        lower(function, inputs, overrides=OVERRIDES, passes=PASSES)


@pytest.mark.parametrize("affine", [True, False])
def test_running_statistics_are_one_operator(affine: bool) -> None:
    state = [draw(3, seed=4), draw(3, seed=5)] if affine else [None, None]

    def function(x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
        return (nn.functional.batch_norm(x, mean, var, *state),)

    inputs = [draw(2, 3, 4, 5), draw(3, seed=2), draw(3, seed=3).abs()]
    assert_same(run(function, inputs), function(*inputs))
    model = onnx_ops.translate(lower(function, inputs, overrides=OVERRIDES, passes=PASSES), OPSET)
    assert [node.op_type for node in model.graph.node] == ["BatchNormalization"]


def test_relu_has_its_mask_from_booleans() -> None:
    def function(x: Tensor, cotangent: Tensor) -> tuple[Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()
        return torch.autograd.grad(torch.relu(leaf), [leaf], cotangent)

    x = torch.tensor([-1.0, -0.0, 0.0, 1e-40, 1e-30, 2.0])
    model = onnx_ops.translate(lower(function, [x, x], overrides=OVERRIDES, passes=PASSES), OPSET)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Cast", "Cast", "Mul"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"i0": x.numpy(), "i1": (x + 7).numpy()})
    assert torch.equal(torch.from_numpy(found), function(x, x + 7)[0])
