"""Batch norm by running statistics becomes part of the convolution in front of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lowering_case import check, draw, operators
from torch import Tensor, nn

from clue_mobile.lowering import lower
from clue_mobile.lowering.passes import DEFAULT

WITHOUT = [name for name in DEFAULT if name != "frozen_norm"]


def _network(**convolution: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, **convolution), nn.BatchNorm2d(6, eps=1e-2), nn.ReLU(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "convolution",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "bias": False},
        {"kernel_size": 2, "dilation": 2},
        {"kernel_size": 3, "groups": 2, "padding": 1},
        {"kernel_size": 1, "bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_stay_and_passes_over_activations_go(convolution: dict[str, Any], batch: int) -> None:
    plain = check(_network(**convolution), batch, 2, 9, 8, passes=WITHOUT)
    folded = check(_network(**convolution), batch, 2, 9, 8)

    def large(graph: torch.fx.GraphModule) -> int:
        return sum(
            node.op == "call_function" and node.meta["val"].dim() == 4 and node.meta["val"].shape[0] == batch
            and str(node.target) in ("aten.mul.Tensor", "aten.add.Tensor", "aten.sub.Tensor")
            and node.meta["val"].shape[2:].numel() > 1
            for node in graph.graph.nodes
        )  # fmt: skip

    # of each layer: forward a product and a sum, backward a difference and two products
    assert large(plain) - large(folded) >= 8


@pytest.mark.parametrize("layers", [(1,), (0,), (0, 1), ()], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_any_part_may_be_frozen(layers: tuple[int, ...], affine: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 2, 1), nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=affine))
    )
    for number in layers:
        network[1][number].requires_grad_(False)  # type: ignore[index]
    check(network, 2, 2, 5, 5)


class _Shared(nn.Module):
    """One convolution's result read by a norm and by something else, or by two norms."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.convolution = kind, nn.Conv2d(2, 3, 3)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        if self.kind == "twice":
            return self.first(y) * self.second(y)
        if self.kind == "again":
            return self.first(y) * self.first(self.convolution(x * x))
        return self.first(y) * y


@pytest.mark.parametrize("kind", ["twice", "other", "again"])
def test_what_others_read_stays(kind: str) -> None:
    check(_Shared(kind), 2, 2, 5, 5)


def test_other_ranks_and_transposed_convolutions() -> None:
    check(nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)), 2, 2, 6)
    check(nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), 2, 2, 3, 3, 3)
    check(nn.Sequential(nn.ConvTranspose2d(2, 3, 3), nn.BatchNorm2d(3)), 2, 2, 4, 4)


def test_serving_is_one_convolution() -> None:
    def serve(x: Tensor, w: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor]:
        return (nn.functional.batch_norm(nn.functional.conv2d(x, w), mean, var, gamma, beta),)

    inputs = [draw(2, 3, 5, 5), draw(4, 3, 3, 3), draw(4), draw(4), draw(4), draw(4).abs() + 0.1]
    graph = lower(serve, inputs)
    torch.testing.assert_close(graph(*inputs)[0], serve(*inputs)[0], rtol=0, atol=1e-12)
    large = [n for n in graph.graph.nodes if n.op == "call_function" and n.meta["val"].shape[:2] == (2, 4)]
    assert [str(node.target) for node in large] == ["aten.convolution.default"]
    assert operators(graph)["convolution"] == 1
