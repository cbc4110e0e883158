"""ResNet-20 for 32x32 images: He et al., Deep Residual Learning for Image Recognition (2016), section 4.2."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

STAGES = (16, 32, 64)
BLOCKS_PER_STAGE = 3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut that has no parameters (option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.pad = (channels - in_channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        shortcut = x
        if self.stride > 1:
            # Option A: every second pixel, zero channels on both sides.
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet20(nn.Module):
    """One convolution, three stages of three blocks, global average pooling, one linear layer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        self.layer1 = _stage(STAGES[0], STAGES[0], stride=1)
        self.layer2 = _stage(STAGES[0], STAGES[1], stride=2)
        self.layer3 = _stage(STAGES[1], STAGES[2], stride=2)
        self.fc = nn.Linear(STAGES[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images [N, C, H, W] to logits [N, num_classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    blocks = [BasicBlock(in_channels, channels, stride)]
    blocks += [BasicBlock(channels, channels, 1) for _ in range(BLOCKS_PER_STAGE - 1)]
    return nn.Sequential(*blocks)


def resnet20(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 32, 32)) -> ResNet20:
    """Build a ResNet-20 for images of `input_shape` (channels, height, width; any size from 4x4 on)."""
    return ResNet20(num_classes, in_channels=input_shape[0])
