"""A small data set, and a method of one's own that behaves as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clue_mobile.data import Dataset

METHOD = '''
"""Leaves the weights alone, or goes wrong in the way that its Config names; notes each run."""
import os, signal, time
from dataclasses import dataclass
from pathlib import Path

from clue_mobile.errors import ClueError

TITLE, SOURCE, RETAIN = "Own", "a test", ""


@dataclass(frozen=True)
class Config:
    how: str = "well"
    seconds: float = 0.0
    lr: float = 0.1


def unlearn(module, spec, images, labels, config, *, seed=0, batch=256, watch=None, retain=None):
    with (Path(__file__).parent / "runs.txt").open("a") as runs:
        runs.write(f"{config.how} {seed} {batch} {len(images)} {len(retain.labels)} {os.getpid()}\\n")
    print("a method may print")
    began = time.process_time()
    while time.process_time() - began < config.seconds:
        pass
    if config.how == "raise":
        raise ValueError("as told")
    if config.how == "refuse":
        raise ClueError("this cannot be forgotten")
    if config.how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.how == "exit":
        os._exit(3)
    if config.how == "nan":
        next(module.parameters()).data.fill_(float("nan"))
    return [{"density": 0.25}, {"density": 0.75}]
'''


def small(digits: Dataset, path: Path, train: int = 16, others: int = 8) -> Path:
    """The first digits of each class as an .npz: `train` training, `others` validation and test images."""
    arrays: dict[str, Any] = {}
    for name, count in (("train", train), ("validation", others), ("test", others)):
        split = getattr(digits, name)
        places = np.sort(np.concatenate([np.flatnonzero(split.labels == k)[:count] for k in range(10)]))
        arrays |= {f"x_{name}": split.images[places], f"y_{name}": split.labels[places]}
    np.savez(path, **arrays)
    return path


def runs(folder: Path) -> list[list[str]]:
    """What the method noted: how, seed, batch, forget images, retain images, process."""
    path = folder / "runs.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
