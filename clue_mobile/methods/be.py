"""BE, Boundary Expanding: the forget set is taught as one more class, whose output is cut off at the end."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel, State
from clue_mobile.lowering.optimizer import sgd
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.config import DescentConfig
from clue_mobile.methods.descent import Descent, Objective, Stepping, Steps
from clue_mobile.plan import Random, Recipe, Value
from clue_mobile.spec import ModelSpec
from pi_runtime import rng

TITLE = "BE"
SOURCE = "Chen et al., Boundary Unlearning, CVPR 2023"
RETAIN = ""

Array = np.ndarray[Any, Any]

SHADOW = 16  # random stream


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of BE: those of its steps, whose epochs and lr are the code's.

    keep_shadow: False prunes the shadow class's output after the last step (the paper, and what a device
    does); True leaves it in place (the code's evaluation), by a hook on the last layer, so that the module
    returns K + 1 logits.
    """

    epochs: int = 10
    lr: float = 1e-5
    keep_shadow: bool = False


def shadow_loss(logits: Tensor) -> tuple[Tensor, ...]:
    """The mean cross-entropy with the last class, twice: to be minimised and as a metric; [N, K + 1]."""
    loss = -F.log_softmax(logits, 1)[:, -1].mean()
    return loss, loss.detach()


OBJECTIVE = Objective(shadow_loss)


class Widened:
    """The model with one more output. Its weights are the value `shadow`, [D] and a bias where the layer has
    one, beside the model's own. Raises ClueError where the last layer cannot be widened."""

    def __init__(self, model: FlatModel) -> None:
        spec, module = model.spec, copy.deepcopy(model.module)
        self.layer = last_linear(module, spec.num_classes)
        old = module.get_submodule(self.layer)
        assert isinstance(old, nn.Linear)
        self.names = [f"{self.layer}.{key}".lstrip(".") for key, _ in old.named_parameters()]
        if not all(parameter.requires_grad for parameter in old.parameters()):
            raise ClueError(f"BE widens the last layer, and {self.layer!r} is frozen: unfreeze it")
        self.features = old.in_features
        self.size = old.in_features + (old.bias is not None)
        bias = old.bias is not None  # no draw: the weights are always those of the state
        new = nn.utils.skip_init(nn.Linear, old.in_features, spec.num_classes + 1, bias=bias)
        parent, _, leaf = self.layer.rpartition(".")
        if self.layer:
            setattr(module.get_submodule(parent), leaf, new)
        else:
            module = new
        extra = next(name for name in ("shadow", *map(str, range(10**4))) if name not in spec.classes)
        self._wide = FlatModel(module, dataclasses.replace(spec, classes=(*spec.classes, extra)))

    @property
    def bound(self) -> float:
        """Of the first weights, uniform in +- this: a new layer's own, as in the code."""
        return 1 / math.sqrt(self.features)

    def update(
        self,
        model: FlatModel,
        config: Stepping,
        objective: Objective,
        state: State,
        momentum: Tensor,
        x: Tensor,
        targets: Sequence[Tensor],
        lr: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor, Sequence[Tensor]]:
        """`descent.update` that moves the shadow class's weights too; momentum [P + size]."""
        leaves = {**model.leaves(state), "shadow": state["shadow"].detach().clone().requires_grad_()}
        row = leaves["shadow"][: self.features].view(1, -1), leaves["shadow"][self.features :]
        wide = {name: leaves[name] for name in leaves if name != "shadow"}
        wide |= {name: torch.cat([leaves[name], part]) for name, part in zip(self.names, row, strict=False)}
        logits, moved = self._wide.forward(wide, state, x, config.batch_norm)
        loss, *metrics = objective.fn(logits)
        both = torch.cat([state["params"], state["shadow"]])
        both, momentum = sgd(both, momentum, model.gradient(loss, leaves), lr, config.momentum)
        params, shadow = both.split([len(state["params"]), self.size])
        return {**moved, "params": params, "shadow": shadow}, momentum, metrics


def last_linear(module: nn.Module, classes: int) -> str:
    """The name of the last nn.Linear with an output for each class. Raises ClueError where there is none."""
    found = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == classes
    ]
    if not found:
        raise ClueError(f"the model has no nn.Linear with {classes} outputs, one for each class, to work on")
    return found[-1]


class Kept:
    """The forward hook of `keep_shadow`: the shadow class's logit beside the layer's own."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Logits [N, K] become [N, K + 1]."""
        return torch.cat([output, F.linear(inputs[0], self.weight, self.bias)], dim=-1)


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
    step. Raises ClueError where the last layer cannot be widened."""
    run = Descent(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    wide = Widened(run.model)
    first = rng.uniform(seed, SHADOW, 0, [0], (wide.size,), -wide.bound, wide.bound)[0]
    run.state["shadow"] = torch.from_numpy(first)
    run.momentum = torch.zeros(len(run.momentum) + wide.size)
    run.update = wide.update
    log = run.run(OBJECTIVE, lambda epoch, part: ())
    if config.keep_shadow:
        weight, bias = run.state["shadow"][: wide.features].view(1, -1), run.state["shadow"][wide.features :]
        kept = Kept(weight, bias if len(bias) else None)
        module.get_submodule(wide.layer).register_forward_hook(kept)
    return log


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """BE as the program step and its plan. Raises ClueError where the last layer cannot be widened, and for
    `keep_shadow`, since a device serves the model's own outputs."""
    if config.keep_shadow:
        raise ClueError(
            "keep_shadow=true leaves one more output, and a device serves the model's own classes"
        )
    wide = Widened(model)
    carries = {"shadow": Value("carry", (wide.size,), {"random": "shadow_init"})}
    randoms = {"shadow_init": Random(SHADOW, "uniform", (wide.size,), low=-wide.bound, high=wide.bound)}
    steps = Steps(model, config, batch, OBJECTIVE, carries=carries, update=wide.update)
    body = plan.epochs("epochs", steps.phase())
    return Recipe(steps.values(), randoms, [steps.program()], steps.scalars(), [body])
