"""SSD, Selective Synaptic Dampening: weights that matter far more to the forget set than to all data
shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel, State
from clue_mobile.methods import Samples, Watch, needed
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.config import POSITIVE, Checked
from clue_mobile.methods.descent import ZEROS, cross_entropy, following, onehot, pixels
from clue_mobile.plan import Port, Program, Recipe, Value
from clue_mobile.spec import ModelSpec

TITLE = "SSD"
SOURCE = (
    "Foster et al., Fast Machine Unlearning without Retraining through Selective Synaptic Dampening, AAAI "
    "2024"
)
RETAIN = "the whole training set, for the importances that a bundle ships"

Array = np.ndarray[Any, Any]

FILE, KEY = "ssd/importances.safetensors", "importances"


@dataclass(frozen=True)
class Config(Checked):
    """Hyperparameters of SSD; the defaults are the paper's.

    alpha: a weight is chosen where its importance to the forget set is above alpha times that to all the
    training data. dampening: lambda; a chosen weight is multiplied by min(lambda * all / forget, 1).
    verify_accuracy: a device's request whose forget accuracy, in percent, stays above this fails.
    """

    alpha: float = 10.0
    dampening: float = 1.0
    verify_accuracy: float = 50.0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "alpha": POSITIVE,
        "dampening": POSITIVE,
        "verify_accuracy": (0, 100),
    }


def squared_gradient(model: FlatModel, state: State, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(the squared gradient of the batch's mean cross-entropy [P], the cross-entropy), in eval mode; labels
    one-hot [N, K]. Of the batch, not of samples, as in the code: importances belong to a batch size."""
    leaves = model.leaves(state)
    logits, _ = model.forward(leaves, state, x)
    loss = cross_entropy(logits, labels)
    gradient = model.gradient(loss, leaves)
    return gradient * gradient, loss.detach()


def dampened(
    params: Tensor, forget: Tensor, full: Tensor, alpha: Tensor, dampening: Tensor
) -> tuple[Tensor, Tensor]:
    """(the new parameters [P], the share that was chosen); forget, full: importances [P]."""
    chosen = (forget > alpha * full).to(params.dtype)
    factor = torch.clamp(dampening * full / forget.clamp_min(1e-30), max=1)
    return params * (1 - chosen + chosen * factor), chosen.mean()


def importances(model: FlatModel, state: State, samples: Samples, batch: int, seed: int = 0) -> Tensor:
    """The mean over batches of the squared gradient, [P]: the samples, class after class, shuffled by the
    contract's order of epoch 0; a last short batch is filled up."""
    order = np.argsort(samples.labels, kind="stable")  # whatever order the set comes in
    images, labels = samples.images[order], samples.labels[order]
    data = Batches(images, labels, model.spec.num_classes, seed, "none")
    total, losses = summed(model, state, data, batch)
    return total / len(losses)


def summed(model: FlatModel, state: State, data: Batches, batch: int) -> tuple[Tensor, list[float]]:
    """(the sum over batches of the squared gradient [P], the cross-entropy of each batch)."""
    total, losses = torch.zeros_like(state["params"]), []
    for part in data.cut(0, batch):
        squares, loss = squared_gradient(model, state, data.x(0, part), data.onehot(part))
        total += squares
        losses.append(loss.item())
    return total, losses


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
    """Forget `images` (uint8 [N, H, W, C], class indices `labels` [N]) in place; returns one row, with the
    share of weights that were chosen. The whole training set is `images` and `retain`."""
    others = needed("ssd", retain)
    full = Samples(np.concatenate([others.images, images]), np.concatenate([others.labels, labels]))
    model = FlatModel(module, spec)
    state = model.pack()
    total, losses = summed(model, state, Batches(images, labels, spec.num_classes, seed, "none"), batch)
    shipped = importances(model, state, full, batch)
    alpha, dampening = torch.tensor(config.alpha), torch.tensor(config.dampening)
    params, density = dampened(state["params"], total / len(losses), shipped, alpha, dampening)
    state["params"] = params
    row = {"epoch": 0, "step": 1, "loss": float(np.mean(losses)), "density": density.item()}
    if watch is not None:
        watch(model, {**state, "importance": total, "importances": shipped}, row)
    module.load_state_dict(model.state_dict(state), strict=False)
    return [row]


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """SSD as the programs importance and dampen and their plan; the bundle ships the importances of `train`.
    Raises ClueError without it."""
    if train is None or not len(train.labels):
        raise ClueError(f"the method ssd needs {RETAIN}: give the training images to export, --data DATA")
    size = model.sizes["params"]
    shipped = importances(model, model.pack(), train, batch)
    small = ("uniform", 0.0, 1e-4)  # golden inputs of either importance: some are chosen, some are not
    total = Port("importance", "carry", (size,), "importance", golden=small)
    batches = Port("batches", "carry", (1,), "batches", golden=("uniform", 1.0, 2.0))
    full = Port("importances", "carry", (size,), "importances", golden=("uniform", 0.0, 1e-5))
    alpha, dampening = (Port(name, "scalar", (), name) for name in ("alpha", "dampening"))

    def importance_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (sums, count, x, labels) = model.unflatten(inputs)
        squares, loss = squared_gradient(model, state, x, labels)
        return sums + squares, count + 1, loss

    def dampen_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        state, (sums, count, everything, a, d) = model.unflatten(inputs)
        return dampened(state["params"], sums / count, everything, a, d)

    state, density = model.state_ports(), Port("density", "metric", ())
    programs = [
        Program(
            "importance",
            batch,
            (*state, total, batches, pixels(model, batch), onehot(model, batch)),
            (following(total), following(batches), Port("loss", "metric", ())),
            importance_fn,
        ),
        Program(
            "dampen",
            batch,
            (*state, total, batches, full, alpha, dampening),
            (*model.next_ports(["params"]), density),
            dampen_fn,
        ),
    ]
    values = {
        **model.values(),
        "importance": Value("carry", (size,), ZEROS),
        "batches": Value("carry", (1,), ZEROS),
        "importances": Value("carry", (size,), {"file": FILE, "key": KEY}),
    }
    body = [
        plan.phase("importance", plan.batches(batch, plan.run("importance"))),
        plan.phase("dampen", plan.run("dampen")),
    ]
    scalars = {"alpha": float(config.alpha), "dampening": float(config.dampening)}
    return Recipe(values, {}, programs, scalars, body, tensors={FILE: {KEY: shipped.numpy()}})
