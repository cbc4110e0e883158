"""A linear classifier of two pixels, on which a step of any method can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from clue_mobile.flat import FlatModel
from clue_mobile.spec import ModelSpec

SPEC = ModelSpec("tiny", ("a", "b", "c"), (1, 1, 2), (0.0,), (1.0,))
WEIGHT = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]


def linear(weight: Any = WEIGHT, bias: bool = False) -> nn.Sequential:
    """z = W x (+ b, zero), W [3, 2]."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=bias))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor(weight))
        if bias:
            module[1].bias.zero_()
    return module


def flat(weight: Any = WEIGHT, bias: bool = False) -> FlatModel:
    """`linear` as a FlatModel."""
    return FlatModel(linear(weight, bias), SPEC)


def images(*rows: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [N, 1, 2, 1]."""
    return np.array(rows, np.uint8).reshape(-1, 1, 2, 1)


def softmax(z: Any) -> Any:
    """Of the last axis."""
    e = np.exp(z)
    return e / e.sum(-1, keepdims=True)
