"""Classifiers that export in a second or two, and a search for their weights in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clue_mobile.spec import ModelSpec

Tensors = Mapping[str, np.ndarray[Any, Any]]

SPEC = ModelSpec("tiny", ("a", "b", "c"), (1, 4, 4), (0.4,), (0.3,))


class TinyTransformer(nn.Module):
    """One block of attention over 2x2 patches; layer norm only, so that it has no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 8, 2, stride=2)
        self.place = nn.Parameter(torch.randn(1, 4, 8) / 3)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.project = nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.project(F.softmax(q @ k.transpose(1, 2) * 8**-0.5, -1) @ v)
        return self.head(F.gelu(self.norm2(x)).mean(1))


class BatchNormNet(nn.Module):
    """A convolution, batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(F.relu(self.norm(self.conv(x))).flatten(1))


class Baked(nn.Module):
    """A linear layer whose weight is no parameter but a constant of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = torch.randn(8, 16)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(F.relu(F.linear(x.flatten(1), self.secret)))


def made(kind: type[nn.Module]) -> nn.Module:
    """A module with seeded weights, none of them zero or one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = kind().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0, 0.5)
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else 0))
    return module


def numpy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors as numpy arrays."""
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def found_windows(files: Iterable[Path], tensors: Tensors) -> set[tuple[str, str]]:
    """(file, tensor) wherever four neighbouring elements of a float tensor of more than 8 stand in a file.

    Runs of equal elements (a bias that is still zero) tell nothing and are left out.
    """
    owner: dict[bytes, str] = {}
    for name, tensor in _searched(tensors):
        windows = np.lib.stride_tricks.sliding_window_view(tensor.reshape(-1), 4)
        owner |= {window.tobytes(): name for window in windows if len(set(window.tolist())) > 1}
    found = set()
    for path in files:
        data = path.read_bytes()
        pieces = (data[start : start + 16] for start in range(len(data) - 15))
        found |= {(path.name, owner[piece]) for piece in pieces if piece in owner}
    return found


def found_elements(files: Iterable[Path], tensors: Tensors) -> set[tuple[str, str]]:
    """The same for four elements in any order and place: a constant may be stored transposed.

    Not for large files, which hold some elements of a large tensor by chance. Round numbers are left out.
    """
    found = set()
    for path in files:
        data = path.read_bytes()
        shifted = [np.frombuffer(data[i : i + (len(data) - i) // 4 * 4], "<u4") for i in range(4)]
        words = np.unique(np.concatenate(shifted))
        for name, tensor in _searched(tensors):
            elements = np.unique(np.ascontiguousarray(tensor).reshape(-1).view("<u4"))
            elements = elements[elements & 0xFF != 0]  # not round
            if np.isin(elements, words).sum() >= 4:
                found.add((path.name, name))
    return found


def _searched(tensors: Tensors) -> list[tuple[str, np.ndarray[Any, Any]]]:
    return [(name, t) for name, t in tensors.items() if t.size > 8 and t.dtype == np.float32]
