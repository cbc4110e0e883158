"""SalUn: random labels for the forget set, true ones for the retain set, and only salient weights move."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel, State
from clue_mobile.lowering.optimizer import sgd
from clue_mobile.methods import Samples, Watch, needed
from clue_mobile.methods.config import POSITIVE, DescentConfig
from clue_mobile.methods.descent import TOWARDS, Descent, Objective, differentiate
from clue_mobile.methods.gradients import mean_gradient
from clue_mobile.spec import ModelSpec
from pi_runtime import rng

TITLE = "SalUn"
SOURCE = "Fan et al., SalUn, ICLR 2024, arXiv 2310.12508"
RETAIN = "all retained training images (as many steps on them as training has)"

Array = np.ndarray[Any, Any]

LABELS = rng.STREAM_METHOD  # random stream


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of SalUn; the defaults are those of the public code (Unlearn-Saliency) for CIFAR-10.

    epochs, lr: 10 and 0.013 in its example. density: the share of weights that may move, those with the
    largest gradient of the cross-entropy on the forget set. weight_decay: of the weights that may move.
    outside: "kept" leaves the others exactly as they are (the paper, and the code since its pull request 33);
    "decay" multiplies only the gradient by the mask, so that weight decay shrinks them (the code before).
    labels: "any" label, the true one too (the code), or one of the "other" labels (the paper). order:
    "forget_first" steps through the forget set and then the retain set in each epoch (the code for CIFAR-10);
    "mixed" shuffles them into one (the code for CIFAR-100; the paper's sum of both losses).

    Labels are drawn anew in each epoch. The other fields are those of `DescentConfig`; stop_every counts the
    steps on the forget set.
    """

    epochs: int = 10
    lr: float = 0.013
    density: float = 0.5
    weight_decay: float = 5e-4
    outside: Literal["kept", "decay"] = "kept"
    labels: Literal["any", "other"] = "any"
    order: Literal["forget_first", "mixed"] = "forget_first"

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **DescentConfig.LIMITS,
        "density": (0, 1),
        "weight_decay": POSITIVE,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order == "mixed" and self.stop_every:
            raise ClueError(
                'stop_every must be 0 with order "mixed", whose steps are not on the forget set alone'
            )


# the method


def salient(gradient: Tensor, density: float) -> Tensor:
    """1 at the share `density` of the weights with the largest |gradient|, else 0; [P]."""
    mask = torch.zeros_like(gradient)
    mask[gradient.abs().topk(int(len(gradient) * density)).indices] = 1
    return mask


def random_labels(seed: int, epoch: int, positions: Array, labels: Array, classes: int, kind: str) -> Array:
    """A label for each of `positions` of the forget set, whose true labels are `labels`; see Config."""
    if kind == "any":
        return rng.integers(seed, LABELS, epoch, positions, (), classes)
    return (labels + 1 + rng.integers(seed, LABELS, epoch, positions, (), classes - 1)) % classes


def update(
    model: FlatModel,
    config: Config,
    objective: Objective,
    state: State,
    momentum: Tensor,
    x: Tensor,
    targets: Sequence[Tensor],
    lr: Tensor,
    mask: Tensor,
) -> tuple[dict[str, Tensor], Tensor, Sequence[Tensor]]:
    """One step of SGD with weight decay under the mask; arguments and result as for `descent.update`."""
    gradient, moved, metrics = differentiate(model, config, objective, state, x, targets)
    decay = config.weight_decay * state["params"]
    gradient = (gradient + decay) * mask if config.outside == "kept" else gradient * mask + decay
    params, momentum = sgd(state["params"], momentum, gradient, lr, config.momentum)
    return {**moved, "params": params}, momentum, metrics


# eager


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
    """Forget in place; returns loss and mask density of each step, and whether it was on retain images
    (retain 1)."""
    rest = needed("salun", retain)

    def descent(images: Array, labels: Array, config: Config) -> Descent:
        run = Descent(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
        run.update = update
        return run

    forget = descent(images, labels, config)
    mask = salient(mean_gradient(forget.model, forget.state, forget.data, 0, batch), config.density)
    notes = {"density": float(mask.mean())}

    def replaced(epoch: int, part: Array) -> tuple[Tensor]:
        """Random labels of positions of the forget set, one-hot."""
        drawn = random_labels(seed, epoch, part, labels[part], spec.num_classes, config.labels)
        return (torch.eye(spec.num_classes)[torch.from_numpy(drawn)],)

    if config.order == "mixed":
        both = descent(np.concatenate([images, rest.images]), np.concatenate([labels, rest.labels]), config)

        def targets(epoch: int, part: Array) -> tuple[Tensor]:
            onehot, of_forget = both.data.onehot(part), part < len(images)  # the forget set comes first
            onehot[torch.from_numpy(of_forget)] = replaced(epoch, part[of_forget])[0]
            return (onehot,)

        for epoch in range(config.epochs):
            if both.epoch(epoch, TOWARDS, targets, mask=mask, notes=notes):
                break
        return both.finish()

    kept = descent(rest.images, rest.labels, dataclasses.replace(config, stop_every=0))
    kept.log = forget.log
    for epoch in range(config.epochs):
        done = forget.epoch(epoch, TOWARDS, replaced, mask=mask, notes=notes)
        kept.state, kept.momentum = forget.state, forget.momentum
        done = done or kept.epoch(
            epoch,
            TOWARDS,
            lambda _, part: (kept.data.onehot(part),),
            mask=mask,
            notes={**notes, "retain": 1.0},
        )
        forget.state, forget.momentum = kept.state, kept.momentum
        if done:
            break
    return forget.finish()
