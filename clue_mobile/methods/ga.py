"""GA, gradient ascent: steps that raise the cross-entropy of the forget set, without retain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import DescentConfig
from clue_mobile.methods.descent import Descent, Objective, Steps, cross_entropy, onehot
from clue_mobile.plan import Recipe
from clue_mobile.spec import ModelSpec

TITLE = "GA"
SOURCE = "Thudi et al., Unrolling SGD: Understanding Factors Influencing Machine Unlearning, EuroS&P 2022"
RETAIN = ""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of GA: those of its steps. lr and epochs are those of the public scripts that have
    become its common form (OPTML-Group/Unlearn-Sparse and Unlearn-Saliency: 1e-4, 5 epochs)."""

    epochs: int = 5
    lr: float = 1e-4


def ascent(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """(minus the mean cross-entropy with the true labels, one-hot, and the cross-entropy
    itself); [N, K] each."""
    loss = cross_entropy(logits, labels)
    return -loss, loss.detach()


OBJECTIVE = Objective(ascent)


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
    """Forget `images` (uint8 [N, H, W, C], class indices `labels` [N]) in place; returns the cross-entropy of
    each step."""
    run = Descent(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    return run.run(OBJECTIVE)


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """GA as the program step and its plan."""
    steps = Steps(model, config, batch, OBJECTIVE, (onehot(model, batch),))
    body = plan.epochs("epochs", steps.phase())
    return Recipe(steps.values(), {}, [steps.program()], steps.scalars(), [body], steps.loss())
