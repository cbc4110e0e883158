"""The vision transformer: its attention, its positions, its input sizes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clue_mobile.errors import ClueError
from clue_mobile.models.vit_small import HEADS, WIDTH, Attention, vit_small_patch4


def test_attention_equals_the_fused_operator() -> None:
    torch.manual_seed(0)
    attention, x = Attention(), torch.randn(2, 5, WIDTH)
    q, k, v = attention.qkv(x).view(2, 5, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)

    fused = attention.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    torch.testing.assert_close(attention(x), fused)


@torch.no_grad()
def test_order_of_patches_matters_through_the_positions_only() -> None:
    torch.manual_seed(0)
    module = vit_small_patch4(input_shape=(3, 8, 8)).eval()
    x = torch.randn(1, 3, 8, 8)
    swapped = torch.cat([x[..., 4:], x[..., :4]], dim=-1)

    assert not torch.allclose(module(x), module(swapped), atol=1e-4)
    module.position.zero_()
    torch.testing.assert_close(module(x), module(swapped))


def test_every_parameter_gets_a_gradient() -> None:
    module = vit_small_patch4(num_classes=3, input_shape=(1, 8, 12))
    F.cross_entropy(module(torch.randn(2, 1, 8, 12)), torch.tensor([0, 2])).backward()

    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_size_must_be_divisible_by_the_patch() -> None:
    with pytest.raises(ClueError, match="divisible by 4, not 30x32"):
        vit_small_patch4(input_shape=(3, 30, 32))
