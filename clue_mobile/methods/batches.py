"""The forget set as the plan sees it: the epoch's order, filled batches, pixels, and the contract's random
numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pi_runtime import augment, rng

Array = np.ndarray[Any, Any]


class Batches:
    """Frozen samples of one request: images uint8 [N, H, W, C], labels [N]; draws are those of every device
    runtime."""

    def __init__(self, images: Array, labels: Array, classes: int, seed: int, augmentation: str) -> None:
        self.images, self.labels, self.classes = images, labels, classes
        self.seed, self.augmentation = seed, augmentation

    def cut(self, epoch: int, size: int, within: Array | None = None) -> Iterator[Array]:
        """Positions of each batch of the epoch's shuffled order, or of an outer batch; the last is filled
        cyclically from its start."""
        order = rng.permutation(self.seed, epoch, len(self.images)) if within is None else within
        for start in range(0, len(order), size):
            yield (
                order[np.arange(start, start + size) % len(order)]
                if start + size > len(order)
                else order[start : start + size]
            )

    def x(self, epoch: int, positions: Array, plain: bool = False) -> Tensor:
        """Pixels in [0, 1], float32 [B, C, H, W], augmented by the epoch's draw unless `plain`."""
        pixels = self.images[positions]
        if self.augmentation == "crop_flip" and not plain:
            pixels = augment.crop_flip(pixels, *rng.augmentation(self.seed, epoch, positions))
        return torch.from_numpy(
            np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
        )

    def onehot(self, positions: Array) -> Tensor:
        """float32 [B, K]."""
        return torch.from_numpy(np.eye(self.classes, dtype=np.float32)[self.labels[positions]])

    def normal(self, stream: int, epoch: int, positions: Array, repeat: int = 0) -> Tensor:
        """Standard normal noise of the images' shape, [B, C, H, W]; `repeat` counts the plan's iterations."""
        height, width, channels = self.images.shape[1:]
        shape = (channels, height, width)
        block = repeat * -(-math.prod(shape) // 4)
        drawn = rng.normal(self.seed, stream, epoch, positions, shape, block_offset=block)
        return torch.from_numpy(drawn)

    def uniform(self, stream: int, epoch: int, positions: Array, low: float, high: float) -> Tensor:
        """One uniform number for each sample, [B]."""
        return torch.from_numpy(rng.uniform(self.seed, stream, epoch, positions, (), low, high))

    def random_onehot(self, stream: int, epoch: int, positions: Array) -> Tensor:
        """A uniformly drawn class for each sample, one-hot, float32 [B, K]."""
        drawn = rng.integers(self.seed, stream, epoch, positions, (), self.classes)
        return torch.from_numpy(np.eye(self.classes, dtype=np.float32)[drawn])
