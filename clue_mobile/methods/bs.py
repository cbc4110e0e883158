"""BS, Boundary Shrink: the forget set is taught the class that lies across the nearest decision boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.flat import FlatModel, State
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import POSITIVE, DescentConfig
from clue_mobile.methods.descent import TOWARDS, ZEROS, Descent, Steps, cross_entropy, onehot, pixels
from clue_mobile.plan import Port, Program, Recipe, Value
from clue_mobile.spec import ModelSpec

TITLE = "BS"
SOURCE = "Chen et al., Boundary Unlearning, CVPR 2023"
RETAIN = ""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of BS, besides those of its steps, whose epochs and lr are the code's.

    bound: of the attack (FGSM) in units of pixels in [0, 1]. labels: "any" takes the class that the original
    model gives the attacked image, the true one where the attack fails (the code); "other" the likeliest of
    the other classes (the paper). The code also rounds attacked pixels to 255 levels; with 0.1 = 25.5 levels
    an engine's own rounding would then decide, so it is left out.
    """

    epochs: int = 10
    lr: float = 1e-5
    bound: float = 0.1
    labels: Literal["any", "other"] = "any"

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {**DescentConfig.LIMITS, "bound": POSITIVE}


def attacked(model: FlatModel, state: State, x: Tensor, true: Tensor, bound: float) -> Tensor:
    """The fast gradient sign method: clip(x + bound sign(dCE/dx), 0, 1) of pixels x [N, C, H, W]."""
    x = x.detach().clone().requires_grad_()
    loss = cross_entropy(model.predict(state, x), true)
    (gradient,) = torch.autograd.grad(loss, [x])
    return torch.clamp(x.detach() + bound * torch.sign(gradient), 0, 1)


def nearest(model: FlatModel, state: State, x: Tensor, true: Tensor, config: Config) -> Tensor:
    """The label of each attacked image, one-hot [N, K] (equal largest logits all count). true: [N, K]."""
    logits = model.predict(state, attacked(model, state, x, true, config.bound))
    if config.labels == "other":
        logits = logits - 1e9 * true
    return 1 - (logits.amax(1, keepdim=True) > logits).to(logits.dtype)


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
    original = dict(run.state)

    def targets(epoch: int, part: Array) -> tuple[Tensor]:
        x, true = run.data.x(epoch, part), run.data.onehot(part)
        return (nearest(run.model, original, x, true, config).detach(),)

    return run.run(TOWARDS, targets)


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """BS as the programs label and step and their plan.

    The labels are the original's. Without augmentation an image has the same one in each epoch: all are found
    once, before the first step. With it they depend on the epoch's draw, so a copy of the original weights is
    carried along, and each epoch begins with its labels.
    """
    cached = Port("label", "cache", (batch, model.spec.num_classes), "label")
    steps = Steps(model, config, batch, TOWARDS, (cached,))

    def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (x, true) = model.unflatten(inputs)
        return (nearest(model, state, x, true, config),)

    values = {**steps.values(), "label": Value("cache", (model.spec.num_classes,), ZEROS)}
    ports = list(model.state_ports())
    if config.augment != "none":
        for number, port in enumerate(ports):
            if port.name != "frozen":  # which never changes
                name = f"original_{port.name}"
                ports[number] = Port(port.name, "carry", port.shape, name)
                values[name] = Value("carry", port.shape, {"value": port.name})
    found = Port("found", "cache", cached.shape, "label")
    label = Program("label", batch, (*ports, pixels(model, batch), onehot(model, batch)), (found,), fn)
    find = plan.phase("label", plan.batches(batch, plan.run("label"), augment=config.augment))
    if config.augment == "none":
        body = [find, plan.epochs("epochs", steps.phase())]
    else:
        body = [plan.epochs("epochs", find, steps.phase())]
    return Recipe(values, {}, [label, steps.program()], steps.scalars(), body, steps.loss())
