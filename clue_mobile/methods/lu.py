"""LU, Lipschitz unlearning: the forget set's logits are drawn towards those of noisy copies of the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import COUNT, POSITIVE, DescentConfig
from clue_mobile.methods.descent import ZEROS, Descent, Objective, Steps, pixels
from clue_mobile.plan import Port, Program, Random, Recipe, Value
from clue_mobile.spec import ModelSpec

TITLE = "LU"
SOURCE = (
    "Foster et al., Zero-Shot Machine Unlearning at Scale via Lipschitz Regularization (JiT), arXiv "
    "2402.01401; later An Information Theoretic Approach to Machine Unlearning, TMLR 2025"
)
RETAIN = ""

Array = np.ndarray[Any, Any]

NOISE = 16  # random stream


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of LU, besides those of its steps (plain SGD in the code).

    copies: noisy copies of each image. sigma: the standard deviation of their noise, in units of pixels in
    [0, 1]. The code clips a copy to the least and largest value of its batch, here to 0 and 1. With
    batch_norm "batch" each copy is normalised by its own batch's statistics and moves the running ones too,
    as in the code's training mode. The loss is a sum over the batch, so lr belongs to the batch.
    """

    epochs: int = 2
    lr: float = 0.01
    momentum: float = 0.0
    copies: int = 100
    sigma: float = 0.1

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **DescentConfig.LIMITS,
        "copies": COUNT,
        "sigma": POSITIVE,
    }


def slopes(clean: Tensor, noisy: Tensor, x: Tensor, copy: Tensor) -> Tensor:
    """||f(x) - f(x')|| / ||x - x'|| of each sample, [N]; logits [N, K], pixels [N, C, H, W]."""
    return _norm(clean - noisy) / _norm(x - copy)


def pull(clean: Tensor, noisy: Tensor, x: Tensor, copy: Tensor) -> Tensor:
    """The gradient of the sum of `slopes` to the clean logits, [N, K]."""
    scale = _norm(clean - noisy) * _norm(x - copy)
    return (clean - noisy) / scale.view(-1, 1)


def _norm(difference: Tensor) -> Tensor:
    return torch.sqrt((difference * difference).flatten(1).sum(1).clamp_min(1e-24))


def noised(x: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """A noisy copy of pixels, clip(x + sigma n, 0, 1)."""
    return torch.clamp(x + sigma * noise, 0, 1)


def along(logits: Tensor, pulls: Tensor) -> tuple[Tensor, ...]:
    """What the step differentiates: since the noisy logits have no gradient, that of the loss is the model's
    vector-Jacobian product with the summed `pull`, whatever the number of copies."""
    return ((logits * pulls).sum(),)


OBJECTIVE = Objective(along, ())


def stepping(config: Config) -> Config:
    """The config of the step itself: the running statistics have moved before it, with the clean logits."""
    keeps = config.batch_norm == "batch"
    return dataclasses.replace(config, batch_norm="batch_keep_running") if keeps else config


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
    step: the batch's sum of slopes, the mean over its copies."""
    run = Descent(module, spec, images, labels, stepping(config), seed=seed, batch=batch, watch=watch)
    notes: dict[str, float] = {}

    def logits(x: Tensor) -> Tensor:
        weights = run.model.named("params", run.state["params"])
        found, moved = run.model.forward(weights, run.state, x, config.batch_norm)
        run.state = {**run.state, **moved}
        return found

    @torch.no_grad()
    def targets(epoch: int, part: Array) -> tuple[Tensor]:
        x = run.data.x(epoch, part)
        clean, pulls, total = logits(x), torch.zeros(len(part), spec.num_classes), 0.0
        for number in range(config.copies):
            copy = noised(x, run.data.normal(NOISE, epoch, part, number), config.sigma)
            noisy = logits(copy)
            pulls = pulls + pull(clean, noisy, x, copy) / config.copies
            total += float(slopes(clean, noisy, x, copy).sum())
        notes["loss"] = total / config.copies
        return (pulls,)

    for epoch in range(config.epochs):
        if run.epoch(epoch, OBJECTIVE, targets, notes=notes):
            break
    return run.finish()


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """LU as the programs clean, noisy and step and their plan: `noisy` is repeated for each copy and adds up
    the gradient to the logits, so that no program grows with the number of copies."""
    classes = model.spec.num_classes
    clean, pulls = (Port(name, "cache", (batch, classes), name) for name in ("clean", "pull"))
    steps = Steps(model, stepping(config), batch, OBJECTIVE, (pulls,))
    moved = model.moving(config.batch_norm)

    def logits(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        weights = model.named("params", state["params"])
        found, changed = model.forward(weights, state, x, config.batch_norm)
        return found, [changed[name] for name in moved]

    def clean_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (x,) = model.unflatten(inputs)
        found, changed = logits(state, x)
        return *changed, found

    def noisy_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (target, total, x, noise, copies) = model.unflatten(inputs)
        copy = noised(x, noise, config.sigma)
        found, changed = logits(state, copy)
        total = total + pull(target, found, x, copy) / copies
        return *changed, total, slopes(target, found, x, copy).sum()

    state, x = model.state_ports(), pixels(model, batch)
    noise, copies = Port("noise", "random", x.shape, "noise"), Port("copies", "scalar", (), "copies")
    new = model.next_ports(moved)
    outputs = dataclasses.replace(clean, name="logits"), dataclasses.replace(pulls, name="pull_next")
    programs = [
        Program("clean", batch, (*state, x), (*new, outputs[0]), clean_fn),
        Program(
            "noisy",
            batch,
            (*state, clean, pulls, x, noise, copies),
            (*new, outputs[1], Port("loss", "metric", ())),
            noisy_fn,
        ),
        steps.program(),
    ]
    values = {**steps.values(), **{name: Value("cache", (classes,), ZEROS) for name in ("clean", "pull")}}
    randoms = {"noise": Random(NOISE, "normal", model.spec.input_shape)}
    copied = plan.repeat("copies", plan.run("noisy"))
    body = plan.epochs("epochs", steps.phase(plan.run("clean"), plan.reset("pull"), copied))
    return Recipe(values, randoms, programs, steps.scalars("copies"), [body])
