"""Attention rollout against products worked out by hand, and the attention of three kinds of transformer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clue_mobile import models
from clue_mobile.evaluate.rollout import Attended, attended, patch_map, rollout

FIRST = [
    [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
    [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],
]
SECOND = [[[0.0, 0.4, 0.6], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]] * 2


def test_two_layers_by_hand() -> None:
    """Two heads, three tokens. Mean of the heads, halved, half an identity added:

    layer 1: [.75 .25 0; 0 .75 .25; .25 0 .75], layer 2: [.5 .2 .3; .5 .5 0; .1 .15 .75].
    """
    flow = rollout([torch.tensor([FIRST]), torch.tensor([SECOND])])
    expected = [
        [0.5 * 0.75 + 0.3 * 0.25, 0.5 * 0.25 + 0.2 * 0.75, 0.2 * 0.25 + 0.3 * 0.75],
        [0.5 * 0.75, 0.5 * 0.25 + 0.5 * 0.75, 0.5 * 0.25],
        [0.1 * 0.75 + 0.75 * 0.25, 0.1 * 0.25 + 0.15 * 0.75, 0.15 * 0.25 + 0.75 * 0.75],
    ]
    assert torch.allclose(flow[0], torch.tensor(expected, dtype=torch.float64), atol=1e-7)
    seen = patch_map(Attended([torch.tensor([FIRST]), torch.tensor([SECOND])], (1, 2), torch.zeros(1, 2)))
    assert torch.allclose(seen[0], torch.tensor([expected[0][1:]], dtype=torch.float64), atol=1e-7)
    free = patch_map(Attended([torch.tensor([FIRST])], (3, 1), torch.zeros(1, 2)))  # no class token
    assert torch.allclose(free[0, :, 0], torch.tensor([1 / 3, 1 / 3, 1 / 3], dtype=torch.float64), atol=1e-7)


def test_rows_are_distributions() -> None:
    random = torch.Generator().manual_seed(0)
    layers = [torch.softmax(4 * torch.randn(3, 2, 7, 7, generator=random), dim=-1) for _ in range(5)]
    flow = rollout(layers)
    assert torch.allclose(flow.sum(dim=-1), torch.ones(3, 7, dtype=torch.float64))
    assert (flow > 0).all()
    alone = rollout([layer[:1] for layer in layers])
    assert torch.allclose(alone[0], flow[0])


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def check(
    found: Attended | None, module: nn.Module, x: torch.Tensor, layers: int, grid: tuple[int, int]
) -> None:
    assert found is not None
    assert len(found.attention) == layers
    assert found.grid == grid
    for weights in found.attention:
        assert torch.allclose(weights.sum(dim=-1), torch.ones(()), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(found.logits, module.eval()(x), atol=1e-5)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())


def test_our_transformer() -> None:
    module = models.load(models.resolve_spec("vit_small_patch4"), None)
    x = images(32)
    found = attended(module, x)
    check(found, module, x, 6, (8, 8))
    assert found is not None
    # the first layer's attention from its own weights
    first = module.blocks[0]
    with torch.no_grad():
        tokens = module.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([module.class_token.expand(2, -1, -1), tokens], dim=1) + module.position
        parts = first.attention.qkv(first.norm1(tokens)).chunk(3, dim=-1)
        q, k, _ = (part.reshape(2, 65, 3, 64).transpose(1, 2) for part in parts)
        expected = F.softmax(q @ k.transpose(-2, -1) / 8, dim=-1)
    assert torch.allclose(found.attention[0], expected, atol=1e-6)


def test_torchvisions_transformer() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    module = VisionTransformer(16, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3)
    nn.init.normal_(module.heads.head.weight)  # torchvision starts it at zero
    x = images(16)
    found = attended(module, x)
    check(found, module, x, 2, (2, 2))
    assert found is not None
    assert found.attention[0].shape == (2, 2, 5, 5)


def test_timms_transformer() -> None:
    timm = pytest.importorskip("timm", reason="timm is an optional package")
    torch.manual_seed(0)
    module = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3
    )
    fused = [block.attn.fused_attn for block in module.blocks]
    x = images(16)
    check(attended(module, x), module, x, 2, (4, 4))
    assert [block.attn.fused_attn for block in module.blocks] == fused


def test_what_is_no_plain_transformer() -> None:
    assert attended(models.load(models.resolve_spec("resnet20"), None), images(32)) is None
    patches = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Softmax(dim=-1), nn.Flatten(), nn.Linear(64, 3))
    assert attended(patches, images(16)) is None  # four tokens cannot look at sixteen patches
    assert attended(nn.Sequential(nn.Softmax(dim=-1)), images(16)) is None
    assert np.isfinite(patches(images(16)).detach().numpy()).all()
