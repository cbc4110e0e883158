"""Retrain: the model trained anew on the retain set alone. What every other method is measured against."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from clue_mobile import models, training
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, Watch, needed
from clue_mobile.methods.config import COUNT, POSITIVE, Checked
from clue_mobile.spec import ModelSpec

TITLE = "Retrain"
SOURCE = "exact unlearning; recipe of clue_mobile/training.py"
RETAIN = "all training images but the forget set"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Config(Checked):
    """The recipe, which should be the original model's: see `training.TrainConfig` for the fields.

    The public code of the comparison trains with a step schedule (182 epochs, lr 0.1, divided by ten after
    epochs 91 and 136, batch 256, momentum 0.9, weight decay 5e-4); this one is one-cycle with the same
    momentum and weight decay. `batch` is the training's, not that of the request.
    """

    epochs: int = 36
    lr: float = 0.1
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: training.Augment = "crop_flip"
    precision: training.Precision = "auto"
    optimizer: training.Optimizer = "sgd"

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "epochs": COUNT,
        "batch": COUNT,
        "lr": POSITIVE,
        "momentum": (0, 1),
        "weight_decay": POSITIVE,
        "label_smoothing": (0, 1),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.recipe(0)

    def recipe(self, seed: int, **changed: Any) -> training.TrainConfig:
        """The same as a training run of `seed`, with other values where they are given."""
        names = {field.name for field in dataclasses.fields(training.TrainConfig)}
        own = {name: value for name, value in vars(self).items() if name in names}
        return training.TrainConfig(**{**own, **changed, "seed": seed})


class _Stopped(Exception):  # noqa: N818
    """`watch` said that it is enough."""


def restart(module: nn.Module, spec: ModelSpec, seed: int) -> None:
    """Put untrained weights, drawn from `seed`, into `module`; frozen parameters stay as they are.

    Raises ClueError where the architecture that `spec` names is not the module's.
    """
    fresh = models.load(spec, None, seed=seed).state_dict()
    frozen = {name: p.detach().clone() for name, p in module.named_parameters() if not p.requires_grad}
    try:
        module.load_state_dict(fresh)
    except RuntimeError as error:
        raise ClueError(
            f"{spec.model} cannot be trained anew: the module given has other weights than a new one"
        ) from error
    module.load_state_dict(frozen, strict=False)


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
    """Train `module` from scratch on `retain` only; returns loss and training accuracy of each epoch.

    `watch` sees every epoch, as its last step, with the state alone. The forget set is not read.
    """
    rest = needed("retrain", retain)
    restart(module, spec, seed)
    log: list[dict[str, float]] = []

    def told(row: dict[str, Any]) -> None:
        steps = max(1, len(rest.labels) // config.batch)
        kept = {name: row[name] for name in ("loss", "train_accuracy", "lr")}
        log.append({"epoch": row["epoch"] - 1, "step": steps, **kept})
        if watch is not None:
            model = FlatModel(module, spec)
            if watch(model, model.pack(), log[-1]):
                raise _Stopped

    try:
        training.train(module, spec, rest.images, rest.labels, config.recipe(seed), progress=told)
    except _Stopped:
        module.to(memory_format=torch.contiguous_format).eval()
    return log
