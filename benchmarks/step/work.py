"""The work that every peer does: a model, a batch, threads, a loss. Read by every environment: numpy only.

A peer is a file peers/NAME.py whose top level imports nothing but the standard library, numpy and this file
(README.md has the list of what it states). What it needs of a framework, it imports inside its functions.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = Path(os.environ.get("CLUE_STEP_PEERS", HERE / "peers"))  # the tests bring their own
MOMENTUM = 0.9
LOSSES = ("cross-entropy", "clue")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class UnavailableError(Exception):
    """This peer cannot do this work; the message says why."""


@dataclass(frozen=True)
class Model:
    """A model of the benchmark. reference: as `--model` of clue-mobile takes it. lr: one at which the loss of
    five steps moves, and does not jump."""

    title: str
    reference: str
    input_shape: tuple[int, int, int]
    lr: float
    classes: int = 10


MODELS = {
    "resnet20": Model("ResNet-20, 32x32", "resnet20", (3, 32, 32), 0.05),
    "resnet18": Model("ResNet-18, 224x224", "torchvision:resnet18", (3, 224, 224), 0.001),
    "mobilenet_v2": Model("MobileNetV2, 224x224", f"{HERE}/networks.py:mobilenet_v2", (3, 224, 224), 0.001),
    "vit_ti_16": Model("ViT-Ti/16, 224x224", f"{HERE}/networks.py:vit_ti_16", (3, 224, 224), 0.01),
    "vit_b_4": Model("ViT-B, patch 4, 32x32", f"{HERE}/networks.py:vit_b_4", (3, 32, 32), 0.01),
    "digits_cnn": Model("digits CNN, 8x8 (for the tests)", "digits_cnn", (1, 8, 8), 0.05),
}
CELLS = (
    ("resnet20", 32),
    ("resnet20", 256),
    ("resnet18", 8),
    ("mobilenet_v2", 8),
    ("vit_ti_16", 8),
    ("vit_b_4", 8),
)


@dataclass(frozen=True)
class Work:
    """One piece of work. folder: where prepare.py put its arrays, and where peers put their files.

    `flops`: of a step, forward and backward, 2 per multiply-add, as PyTorch counts them in eager mode.
    """

    model: str
    batch: int
    threads: int
    loss: str
    folder: Path
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    parameters: int = 0
    flops: int = 0

    @property
    def lr(self) -> float:
        """The learning rate of SGD."""
        return MODELS[self.model].lr

    @property
    def classes(self) -> int:
        """The number of logits."""
        return MODELS[self.model].classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return MODELS[self.model].input_shape

    def array(self, name: str) -> Array:
        """x: pixels in [0, 1], float32 [N, C, H, W]; onehot, teacher: float32 [N, K]; labels: int64 [N]."""
        return np.load(self.folder / f"{name}.npy")

    def state(self) -> dict[str, Array]:
        """Parameters and floating-point buffers at the start, by PyTorch's names."""
        with np.load(self.folder / "state.npz") as file:
            return {name: file[name] for name in file.files}

    def place(self, peer: str) -> Path:
        """The folder of a peer's own files."""
        return self.folder / peer

    def write(self) -> None:
        """Put the facts beside the arrays, for `read`."""
        facts = {key: value for key, value in asdict(self).items() if key not in ("folder", "threads")}
        (self.folder / "work.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")

    @staticmethod
    def read(folder: Path, threads: int) -> Work:
        """The work whose arrays lie in `folder`."""
        facts = json.loads((folder / "work.json").read_text(encoding="utf-8"))
        facts |= {key: tuple(facts[key]) for key in ("mean", "std")}
        return Work(**facts, folder=folder, threads=threads)


def folder_of(cache: Path, model: str, batch: int, loss: str) -> Path:
    """Where the arrays of this work are kept."""
    return cache / "work" / f"{model}-b{batch}{'' if loss == LOSSES[0] else '-' + loss}"


# the peers


@dataclass(frozen=True)
class Peer:
    """What a peer's file states about itself."""

    name: str
    title: str
    environment: str
    packages: tuple[str, ...]
    folders: tuple[str, ...]
    momentum: bool
    losses: tuple[str, ...]
    ours: str
    note: str

    def why_not(self, work: Work) -> str | None:
        """Why it cannot do this work, where that can be told beforehand."""
        return None if work.loss in self.losses else f"it has no row for the loss {work.loss}"


def module_of(name: str) -> Any:
    """The peer's module. It is no entry of sys.modules: its name may be that of a package."""
    for path in (str(HERE), str(PEERS)):
        if path not in sys.path:
            sys.path.insert(0, path)  # for the files that peers share
    spec = importlib.util.spec_from_file_location(f"peer_{name}", PEERS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer(name: str) -> Peer:
    """What peers/NAME.py states."""
    module = module_of(name)
    return Peer(
        name,
        module.TITLE,
        getattr(module, "ENVIRONMENT", "clue"),
        tuple(getattr(module, "PACKAGES", ())),
        tuple(getattr(module, "FOLDERS", ())),
        getattr(module, "MOMENTUM", True),
        tuple(getattr(module, "LOSSES", LOSSES[:1])),
        getattr(module, "OURS", ""),
        getattr(module, "NOTE", ""),
    )


def peer_names() -> Iterator[str]:
    """All peers there are, the references first."""
    found = sorted(path.stem for path in PEERS.glob("[!_]*.py"))
    yield from (name for name in REFERENCES if name in found)
    yield from (name for name in found if name not in REFERENCES)


# what others are compared with, in every run: eager PyTorch, the same without momentum, the same in its other
# layout (how far rounding alone drives losses apart), the machine's GEMM
EAGER, PLAIN, LAYOUT, GEMM = "eager", "eager_plain", "eager_channels_last", "gemm"
REFERENCES = (EAGER, PLAIN, LAYOUT, GEMM)
