"""Grad-CAM against a hand computation on a net of one convolution, and the layer it picks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clue_mobile import models
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.gradcam import feature_maps, grad_cam, last_map
from clue_mobile.spec import ModelSpec

SPEC = ModelSpec("tiny", ("a", "b"), (1, 2, 2), (0.0,), (1.0,))
IMAGE = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])


def tiny(inplace: bool = False) -> nn.Sequential:
    """Two channels, x and -2 x; relu; the mean of each; logits 3 m0 - m1 and -m0 + 5 m1."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False),
        nn.ReLU(inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        net[4].weight.copy_(torch.tensor([[3.0, -1.0], [-1.0, 5.0]]))
        net[4].bias.zero_()
    return net


def test_by_hand() -> None:
    """After the relu the maps are [1 2; 3 0] and [0 0; 0 8]; d logit / d map is a quarter of the weights."""
    maps, logits = grad_cam(tiny(), SPEC, IMAGE.repeat(2, 1, 1, 1), torch.tensor([0, 1]))
    assert torch.allclose(logits[0], torch.tensor([3 * 1.5 - 2.0, -1.5 + 10.0]))
    assert torch.allclose(maps[0], torch.tensor([[0.75, 1.5], [2.25, 0.0]]))  # 3/4 A0 - 1/4 A1, below 0 cut
    assert torch.allclose(maps[1], torch.tensor([[0.0, 0.0], [0.0, 10.0]]))


@pytest.mark.parametrize("inplace", [False, True])
def test_at_a_named_layer(inplace: bool) -> None:
    """Before the relu, maps [1 2; 3 -4], [-2 -4; -6 8]: the gradient is 0 where the relu cut, so its mean for
    class 0 is 3/4 * 3/4 and -1/4 * 1/4."""
    net = tiny(inplace).requires_grad_(False)  # frozen weights need no gradient of their own
    maps, _ = grad_cam(net, SPEC, IMAGE, torch.tensor([0]), "0")
    expected = 9 / 16 * IMAGE[0, 0] - 1 / 16 * (-2 * IMAGE[0, 0])
    assert torch.allclose(maps[0], expected.relu())
    with pytest.raises(ClueError, match=r"unknown layer of tiny with a feature map 'conv'.*Choices: 0, 1"):
        grad_cam(net, SPEC, IMAGE, torch.tensor([0]), "conv")
    assert not net[0]._forward_hooks


def test_the_layer_that_is_picked() -> None:
    assert feature_maps(tiny(), SPEC) == ["0", "1"]
    for model, layer in (("digits_cnn", "bn3"), ("resnet20", "layer3")):
        spec = models.resolve_spec(model)
        assert last_map(models.load(spec, None), spec) == layer
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ClueError, match="tiny has no feature map of more than one pixel"):
        last_map(flat, SPEC)
