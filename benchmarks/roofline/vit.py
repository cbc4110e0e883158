"""Vision transformers of the tables: factories for `--model benchmarks/roofline/vit.py:NAME`."""

from __future__ import annotations

import timm
from torch import nn


def vit_b_patch4(num_classes: int) -> nn.Module:
    """ViT-B on 32x32 images in patches of 4: 65 tokens, width 768, depth 12."""
    return timm.create_model("vit_base_patch16_224", img_size=32, patch_size=4, num_classes=num_classes)
