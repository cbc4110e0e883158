"""Models for the methods that run on a server: softmax regression that can be worked out by hand, and one
that notes which images it was trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile import models, training
from clue_mobile.data import Split
from clue_mobile.methods import Samples
from clue_mobile.spec import ModelSpec

LINEAR = ModelSpec("linear", ("a", "b", "c"), (1, 1, 2), (0.0,), (1.0,))
RECORDING = ModelSpec("server_case:recorder", ("a", "b", "c"), (1, 2, 2), (0.0,), (1.0,))

SEEN: list[int] = []
"""The images that any Recorder was trained on, in their order; the tests empty it."""


def linear(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Sequential:
    """z = W x + b in double."""
    layer = nn.Linear(2, 3, bias=bias is not None).double()
    layer.weight.data.copy_(torch.from_numpy(weight))
    if bias is not None:
        layer.bias.data.copy_(torch.from_numpy(bias))
    return nn.Sequential(nn.Flatten(), layer)


def softmax(z: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def pictures(n: int, seed: int = 0) -> Samples:
    """n images of LINEAR and labels, drawn."""
    draw = np.random.RandomState(seed)
    return Samples(
        draw.randint(0, 256, (n, 1, 2, 1)).astype(np.uint8), draw.randint(0, 3, n).astype(np.int64)
    )


def numbered(n: int) -> Samples:
    """n images of RECORDING, n at most 65,536, whose first two pixels are their number; labels 0, 1, 2 in
    turn."""
    images = np.random.RandomState(0).randint(0, 256, (n, 2, 2, 1)).astype(np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(n) % 256, np.arange(n) // 256
    return Samples(images, np.arange(n, dtype=np.int64) % 3)


class Recorder(nn.Module):
    """Linear, with batch norm; notes the numbers of the images that it sees in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 2, 2]."""
        if self.training:
            numbers = (x.detach()[:, 0, 0] * 255).round().long()
            SEEN.extend((numbers[:, 0] + 256 * numbers[:, 1]).tolist())
        return self.fc(self.norm(x).flatten(1))


def recorder() -> Recorder:
    """Untrained."""
    return Recorder()


def digits_accuracy(module: nn.Module, split: Split) -> float:
    """In percent."""
    spec = models.resolve_spec("digits_cnn")
    return 100 * training.accuracy(module, spec, split.images, split.labels)


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether all weights and buffers are equal, bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
