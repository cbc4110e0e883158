"""What the tests of parity, memory and copies share: quick exports, a wide model, real CIFAR images."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from clue_mobile.bundle import golden
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples
from clue_mobile.plan import Program, Recipe
from clue_mobile.spec import ModelSpec

SHARED = Path(__file__).parents[3] / "shared"
CIFAR_WEIGHTS = SHARED / "models" / "resnet20_cifar10.safetensors"
CIFAR_IMAGES = SHARED / "data" / "cifar10_images.zip"

needs_cifar = pytest.mark.skipif(
    not (CIFAR_WEIGHTS.is_file() and CIFAR_IMAGES.is_file()),
    reason=f"needs {CIFAR_WEIGHTS.name} and {CIFAR_IMAGES.name} in ../shared, next to the repository",
)


def quick_export(
    module: nn.Module,
    spec: ModelSpec,
    out: Path,
    *,
    method: str = "clue",
    batch: int = 32,
    runtimes: tuple[str, ...] | None = None,
    train: Samples | None = None,
    **hyperparameters: Any,
) -> Path:
    """Export for this computer, without golden vectors: they take most of the time, and other tests check
    them."""

    def no_golden(model: FlatModel, recipe: Recipe, program: Program) -> golden.Golden:
        one = np.zeros(1, np.float32)
        draws = {port.name: [golden._draw(math.prod(port.shape), "constant", 0)] for port in program.inputs}
        outputs = {port.name: {"stride": 1, "tolerance": 1.0} for port in program.outputs}
        return golden.Golden(0, draws, {port.name: one for port in program.outputs}, outputs)

    recipe = ExportRecipe(
        kept_at_least=0,  # tiny models of random weights have nothing to keep
        target="host",
        method=method,
        batch=batch,
        runtimes=runtimes,
        hyperparameters=hyperparameters,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "make", no_golden)
        return export(module, spec, out, recipe, train=train)


WIDE = ModelSpec("wide", ("a", "b", "c", "d"), (3, 16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def wide() -> nn.Module:
    """A perceptron of 7.9 million parameters (30 MiB), of which two matrices have nearly all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(768, 2048),
            nn.ReLU(),
            nn.Linear(2048, 3072),
            nn.ReLU(),
            nn.Linear(3072, 4),
        )


def cifar_images(label: str, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The first `count` training images of a class, uint8 [N, 32, 32, 3], straight from the archive: loading
    the whole data set would decode 60,000."""
    with zipfile.ZipFile(CIFAR_IMAGES) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith(f"cifar10/train/{label}/"))[:count]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])
