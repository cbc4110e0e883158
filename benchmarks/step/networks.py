"""Models whose stock factory does not give what the benchmark needs. Reached as path/networks.py:NAME."""

from __future__ import annotations

from torch import nn


def mobilenet_v2(num_classes: int) -> nn.Module:
    """torchvision's MobileNetV2 without its dropout, so that every peer computes the same."""
    from torchvision.models import mobilenet_v2 as make

    return make(num_classes=num_classes, dropout=0.0)


def _vit(image: int, patch: int, width: int, heads: int, num_classes: int) -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image, patch, 12, heads, width, 4 * width, num_classes=num_classes)
    nn.init.trunc_normal_(
        model.heads.head.weight, std=0.02
    )  # zeros by default: the first losses would say little
    return model


def vit_ti_16(num_classes: int) -> nn.Module:
    """ViT-Ti/16 for 224x224 images: width 192, depth 12, 3 heads (Touvron et al. 2021)."""
    return _vit(224, 16, 192, 3, num_classes)


def vit_b_4(num_classes: int) -> nn.Module:
    """ViT-B for 32x32 images in patches of 4: width 768, depth 12, 12 heads (Dosovitskiy et al. 2021)."""
    return _vit(32, 4, 768, 12, num_classes)
