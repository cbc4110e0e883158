"""A convolutional network for 8x8 digits: trains in seconds, for demonstrations and tests."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with batch normalisation, global average pooling, one linear layer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        # Batch normalisation subtracts the mean, so a bias before it would do nothing.
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images [N, C, H, W] to logits [N, num_classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean(dim=(2, 3)))


def digits_cnn(num_classes: int = 10, input_shape: tuple[int, int, int] = (1, 8, 8)) -> DigitsCNN:
    """Build the network for images of `input_shape` (channels, height, width; any size)."""
    return DigitsCNN(num_classes, in_channels=input_shape[0])
