"""Plain training as programs and a plan: what retraining costs on a device's runtime, step by step.

No unlearning method: `clue-mobile cost` measures its step. Exported as a bundle of its own it runs on the
device like any other, so that the step is measured where the requests ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from clue_mobile import plan
from clue_mobile.flat import BatchNorm, FlatModel
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import DescentConfig
from clue_mobile.methods.descent import TOWARDS, Descent, Steps, onehot
from clue_mobile.plan import Recipe
from clue_mobile.spec import ModelSpec

TITLE = "Training"
SOURCE = "SGD with momentum on the cross-entropy of the true labels"
RETAIN = ""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Config(DescentConfig):
    """As training sets them: batch statistics in the norms, crops and flips; it never stops early."""

    epochs: int = 1
    lr: float = 0.1
    batch_norm: BatchNorm = "batch"
    stop_every: int = 0
    verify_accuracy: float = 100.0


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
    """Train on `images` (uint8 [N, H, W, C], class indices `labels` [N]) in place; returns the cross-entropy
    of each step."""
    run = Descent(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    return run.run(TOWARDS)


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """The program `step` and its plan."""
    steps = Steps(model, config, batch, TOWARDS, (onehot(model, batch),))
    body = plan.epochs("epochs", steps.phase())
    return Recipe(steps.values(), {}, [steps.program()], steps.scalars(), [body], steps.loss())
