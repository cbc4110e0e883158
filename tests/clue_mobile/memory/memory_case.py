"""A small residual network whose step has something to recompute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clue_mobile.flat import FlatModel
from clue_mobile.methods import clue
from clue_mobile.plan import Program
from clue_mobile.spec import ModelSpec

SPEC = ModelSpec("tiny", tuple("abcde"), (3, 16, 16), (0.5,) * 3, (0.25,) * 3)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Net(nn.Module):
    """A stem, `depth` blocks and a linear layer."""

    def __init__(self, depth: int = 2, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, len(SPEC.classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def step(batch: int = 8, batch_norm: str = "batch", **size: int) -> Program:
    """CLUE's step of the network."""
    torch.manual_seed(0)
    model = FlatModel(Net(**size), SPEC)
    config = clue.Config(batch_norm=batch_norm)
    return next(p for p in clue.build(model, config, batch).programs if p.name == "step")
