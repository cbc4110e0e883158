"""RL, random labels: steps towards labels drawn anew for each batch, which may be the true ones; without
retain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from clue_mobile import plan
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import DescentConfig
from clue_mobile.methods.descent import TOWARDS, Descent, Steps
from clue_mobile.plan import Port, Random, Recipe
from clue_mobile.spec import ModelSpec

TITLE = "RL"
SOURCE = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020, without its retain data"
RETAIN = ""

Array = np.ndarray[Any, Any]

DRAWN = 16  # random stream


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of RL: those of its steps. epochs and lr are those of the public scripts that have
    become its common form (OPTML-Group/Unlearn-Saliency: 10 epochs; lr between 1e-4 and 0.1)."""

    epochs: int = 10
    lr: float = 1e-3


def unlearn(
    module: nn.Module,
    spec: ModelSpec,
    images: Array,
    labels: Array,
    config: Config,
    *,
    seed: int = 0,
    batch: int = 256,
    watch: Watch | None = None,
    retain: Samples | None = None,
) -> list[dict[str, float]]:
    """Forget `images` (uint8 [N, H, W, C], class indices `labels` [N]) in place; returns the loss of each
    step."""
    run = Descent(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    return run.run(TOWARDS, lambda epoch, part: (run.data.random_onehot(DRAWN, epoch, part),))


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """RL as the program step and its plan."""
    classes = model.spec.num_classes
    drawn = Port("drawn", "random", (batch, classes), "drawn")
    steps = Steps(model, config, batch, TOWARDS, (drawn,))
    randoms = {"drawn": Random(DRAWN, "onehot", (classes,), classes=classes)}
    body = plan.epochs("epochs", steps.phase())
    return Recipe(steps.values(), randoms, [steps.program()], steps.scalars(), [body], steps.loss())
