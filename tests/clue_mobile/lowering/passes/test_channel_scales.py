"""A factor of each channel before a convolution's backward pass ends up on its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lowering_case import Apply, check
from torch import Tensor, nn
from torch.fx import GraphModule

from clue_mobile.lowering.passes import DEFAULT

WITHOUT = [name for name in DEFAULT if name != "channel_scales"]


def _scaled_activations(graph: GraphModule) -> int:
    """How many products of an activation with a number for each channel there are."""
    count = 0
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.mul.Tensor and node.meta["val"].dim() > 3:
            sizes = [a.meta["val"].numel() for a in node.args if isinstance(a, torch.fx.Node)]
            count += len(sizes) == 2 and min(sizes) == node.meta["val"].shape[1] < max(sizes)
    return count


@pytest.mark.parametrize(
    "convolution",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "bias": False},
        {"kernel_size": 2, "dilation": 2, "padding": 1},
        {"kernel_size": 3, "groups": 2, "stride": 2, "padding": 1},
        {"kernel_size": 1, "bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_factor_of_batch_norms_backward_leaves_the_activations(
    convolution: dict[str, Any], batch: int
) -> None:
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, **convolution), nn.BatchNorm2d(6), nn.ReLU(),
        )  # fmt: skip

    shape = (batch, 2, 9, 8)
    plain = check(network(), *shape, training=True, passes=WITHOUT)
    moved = check(network(), *shape, training=True)
    assert _scaled_activations(plain) - _scaled_activations(moved) == 2


def test_frozen_weights_ask_for_no_gradient_of_theirs() -> None:
    first = nn.Conv2d(2, 4, 3).requires_grad_(False)
    check(nn.Sequential(nn.Conv2d(2, 2, 1), first, nn.BatchNorm2d(4)), 3, 2, 5, 5, training=True)


def test_a_scaled_gradient_with_other_readers_stays() -> None:
    class Twice(nn.Module):
        """The convolution's result also goes on without the norm."""

        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.convolution(x)
            return self.norm(y) + y * y

    plain = check(Twice(), 2, 2, 6, 6, training=True, passes=WITHOUT)
    moved = check(Twice(), 2, 2, 6, 6, training=True)
    assert _scaled_activations(plain) == _scaled_activations(moved)


def test_transposed_convolutions_are_left_alone() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(2, 4, 3, stride=2), nn.BatchNorm2d(4))
    check(network, 2, 2, 4, 5, training=True)


def test_a_factor_of_each_element_is_none_of_each_channel() -> None:
    check(Apply(lambda x: nn.functional.conv2d(x, x[:, :1, :2, :2]) * x[:, :1, 1:, 1:]), 1, 1, 4, 4)
