"""A small vision transformer for 32x32 images: Dosovitskiy et al., An Image Is Worth 16x16 Words (2021)."""

from __future__ import annotations

import torch
from torch import nn

from clue_mobile.errors import ClueError

PATCH = 4
WIDTH = 192
DEPTH = 6
HEADS = 3
MLP_RATIO = 4


class Attention(nn.Module):
    """Multi-head self-attention.

    Spelled as products and a softmax: the fused operator's backward is one opaque kernel, which no mobile
    runtime has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.softmax = nn.Softmax(dim=-1)  # a layer, so that a hook sees the attention
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens [N, T, WIDTH] to [N, T, WIDTH]."""
        batch, tokens, _ = x.shape
        head = WIDTH // HEADS
        # Rank 4 throughout: some mobile converters refuse the usual rank-5 split of q, k and v.
        q, k, v = (
            part.reshape(batch, tokens, HEADS, head).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        weights = self.softmax(q @ k.transpose(-2, -1) * head**-0.5)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, WIDTH))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a layer normalisation and around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, MLP_RATIO * WIDTH), nn.GELU(), nn.Linear(MLP_RATIO * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens [N, T, WIDTH] to [N, T, WIDTH]."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels, a class token, learned positions, pre-norm blocks, a linear head."""

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = input_shape
        if height % PATCH or width % PATCH:
            raise ClueError(
                f"vit_small_patch4 needs a height and width divisible by {PATCH}, not {height}x{width}"
            )
        patches = (height // PATCH) * (width // PATCH)
        self.patch = nn.Conv2d(channels, WIDTH, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.zeros(1, 1 + patches, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images [N, C, H, W] to logits [N, num_classes]."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0])


def vit_small_patch4(
    num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 32, 32)
) -> VisionTransformer:
    """Build the transformer for images of `input_shape` (channels, height, width; both divisible by 4)."""
    return VisionTransformer(num_classes, input_shape)
