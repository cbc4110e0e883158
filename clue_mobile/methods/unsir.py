"""UNSIR: images of noise, made to be least taken for the forgotten class, impair the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.errors import ClueError
from clue_mobile.flat import BatchNorm, FlatModel, State
from clue_mobile.lowering.optimizer import adam
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.config import COUNT, POSITIVE, Checked
from clue_mobile.methods.descent import ZEROS, Objective, cross_entropy, following, onehot, update
from clue_mobile.plan import Port, Program, Random, Recipe, Value
from clue_mobile.spec import ModelSpec
from pi_runtime import rng

TITLE = "UNSIR"
SOURCE = "Tarun et al., Fast Yet Effective Machine Unlearning, TNNLS 2023 (arXiv 2111.08947)"
RETAIN = ""

Array = np.ndarray[Any, Any]
Moments = tuple[Tensor, Tensor, Tensor]

NOISE = 16  # random stream


@dataclass(frozen=True)
class Config(Checked):
    """Hyperparameters of UNSIR.

    The noise: noise_images images, standard normal in units of pixels, optimised by Adam (noise_lr) in
    noise_epochs x noise_steps steps for a high cross-entropy with the forgotten class and, weighted by
    penalty, a small square. batch_norm: whose statistics normalise there and in the steps (DescentConfig).

    reading "code": then one step of SGD (lr, momentum) on the first impair_images of them, impair_copies
    times each, labelled 0 whatever the class; all of this `epochs` times. 3 x 20 come from a loop in the code
    that runs over an image's three channels, not over the batch. reading "paper": the noise has the forgotten
    class's label and is mixed, impair_copies times, with retain_per_class images of each other class for an
    epoch of Adam (lr, the paper's is 0.02), and an epoch on these images alone (repair_lr) repairs; it needs
    retain data, so no device can run it. verify_accuracy: a device's request whose forget accuracy, in
    percent, stays above this fails.
    """

    reading: Literal["code", "paper"] = "code"
    epochs: int = 1
    lr: float = 0.01
    momentum: float = 0.9
    batch_norm: BatchNorm = "batch"
    noise_images: int = 256
    noise_epochs: int = 10
    noise_steps: int = 8
    noise_lr: float = 0.1
    penalty: float = 0.1
    impair_images: int = 3
    impair_copies: int = 20
    retain_per_class: int = 1000
    repair_lr: float = 0.01
    verify_accuracy: float = 50.0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **dict.fromkeys(("epochs", "noise_images", "impair_images", "impair_copies"), COUNT),
        **dict.fromkeys(("noise_epochs", "noise_steps", "retain_per_class"), COUNT),
        **dict.fromkeys(("lr", "noise_lr", "penalty", "repair_lr"), POSITIVE),
        "momentum": (0, 1),
        "verify_accuracy": (0, 100),
    }


def noise_loss(logits: Tensor, target: Tensor, noise: Tensor, penalty: float) -> Tensor:
    """What the noise [M, C, H, W] minimises; target: [K], the forgotten class, one-hot, or the shares of
    several."""
    return penalty * (noise * noise).flatten(1).sum(1).mean() - cross_entropy(logits, target)


def noise_step(
    model: FlatModel, config: Config, state: State, noise: Tensor, moments: Moments, target: Tensor
) -> tuple[dict[str, Tensor], Tensor, Moments, Tensor]:
    """One step of Adam on the noise: (what changes of the state, noise, moments, loss)."""
    leaf = noise.detach().clone().requires_grad_()
    weights = model.named("params", state["params"])
    logits, moved = model.forward(weights, state, leaf, config.batch_norm)
    loss = noise_loss(logits, target, leaf, config.penalty)
    (gradient,) = torch.autograd.grad(loss, [leaf])
    noise, moments = adam(noise, moments, gradient, config.noise_lr)
    return moved, noise, moments, loss.detach()


def first_class(logits: Tensor) -> tuple[Tensor, ...]:
    """The mean cross-entropy with class 0, twice: to be minimised and as a metric; [N, K]."""
    loss = -torch.log_softmax(logits, 1)[:, 0].mean()
    return loss, loss.detach()


IMPAIR = Objective(first_class)


def impairing(noise: Tensor, config: Config) -> Tensor:
    """The images of the code's one step, [impair_images * impair_copies, C, H, W]."""
    return torch.cat([noise[: config.impair_images]] * config.impair_copies)


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
    """Forget the class of `labels` [N] in place, without a look at `images`; returns the losses of each
    epoch. Raises ClueError where the paper's reading has no `retain`."""
    if config.reading == "paper" and (retain is None or not len(retain.labels)):
        raise ClueError("the paper's reading of unsir needs images of the other classes, and none were given")
    model = FlatModel(module, spec)
    state, log = model.pack(), []
    momentum = torch.zeros_like(state["params"])
    data = Batches(images, labels, spec.num_classes, seed, "none")
    counts = torch.stack([data.onehot(part).sum(0) for part in data.cut(0, batch)]).sum(0)
    target = counts / counts.sum()
    shape = (config.noise_images, *spec.input_shape)
    for epoch in range(config.epochs):
        noise = torch.from_numpy(rng.normal(seed, NOISE, epoch, [0], shape)[0])
        moments: Moments = (torch.zeros(shape), torch.zeros(shape), torch.zeros(2))
        found = []
        for _ in range(config.noise_epochs * config.noise_steps):
            moved, noise, moments, loss = noise_step(model, config, state, noise, moments, target)
            state = {key: t.detach() for key, t in {**state, **moved}.items()}
            found.append(loss.item())
        if config.reading == "paper":
            assert retain is not None
            state, loss = _impair_and_repair(model, config, state, noise, target, retain, seed, epoch, batch)
        else:
            x, lr = impairing(noise, config), torch.tensor(config.lr)
            moved, momentum, (loss,) = update(model, config, IMPAIR, state, momentum, x, (), lr)
            state = {key: t.detach() for key, t in {**state, **moved}.items()}
        row = {"epoch": epoch, "step": 1, "noise_loss": float(np.mean(found)), "loss": loss.item()}
        log.append(row)
        if watch is not None and watch(model, {**state, "momentum": momentum, "noise": noise}, row):
            break
    module.load_state_dict(model.state_dict(state), strict=False)
    return log


def _impair_and_repair(
    model: FlatModel,
    config: Config,
    state: State,
    noise: Tensor,
    target: Tensor,
    retain: Samples,
    seed: int,
    epoch: int,
    batch: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """The paper's two epochs; returns the state and the last loss of the first."""
    order = np.argsort(retain.labels, kind="stable")
    kept = [np.flatnonzero(retain.labels[order] == k)[: config.retain_per_class] for k in set(retain.labels)]
    chosen = order[np.concatenate(kept)]
    others = Batches(retain.images[chosen], retain.labels[chosen], model.spec.num_classes, seed, "none")
    every = np.arange(len(chosen))
    x, y = others.x(epoch, every), others.onehot(every)
    copies = config.impair_copies * len(noise)
    mixed = torch.cat([noise] * config.impair_copies + [x]), torch.cat([target.expand(copies, -1), y])
    new, losses = dict(state), []
    for (inputs, wanted), lr in ((mixed, config.lr), ((x, y), config.repair_lr)):
        zeros = torch.zeros_like(new["params"])
        moments: Moments = (zeros, zeros, torch.zeros(2))
        for part in np.array_split(rng.permutation(seed, epoch, len(inputs)), -(-len(inputs) // batch)):
            leaves = model.leaves(new)
            logits, moved = model.forward(leaves, new, inputs[part], config.batch_norm)
            loss = cross_entropy(logits, wanted[part])
            params, moments = adam(new["params"], moments, model.gradient(loss, leaves), lr)
            new = {key: t.detach() for key, t in {**new, **moved, "params": params}.items()}
        losses.append(loss.detach())
    return new, losses[0]


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """The code's reading as the programs label, noise and impair and their plan. Raises ClueError for the
    paper's."""
    if config.reading == "paper":
        raise ClueError("the paper's reading of unsir needs retain data: a device can run reading=code only")
    classes, size = model.spec.num_classes, model.sizes["params"]
    moved = model.moving(config.batch_norm)
    shape = (config.noise_images, *model.spec.input_shape)
    state, momentum = model.state_ports(), Port("momentum", "carry", (size,), "momentum")
    label = Port("label", "carry", (classes,), "label", golden=("uniform", 0.5, 1))
    noise = Port("noise", "carry", shape, "noise", golden=("normal", 0, 1))
    small, share = ("uniform", 1e-5, 1e-4), ("uniform", 0.1, 0.5)  # a mean of squares is above zero
    carried = (
        noise,
        Port("first", "carry", shape, "first"),
        Port("second", "carry", shape, "second", golden=small),
        Port("ones", "carry", (2,), "ones", golden=share),
    )

    def label_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        _, (counts, true) = model.unflatten(inputs)
        return (counts + true.sum(0),)

    def noise_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (counts, images, *old) = model.unflatten(inputs)
        target = counts / counts.sum()
        changed, images, new, loss = noise_step(
            model, config, weights, images, (old[0], old[1], old[2]), target
        )
        return *(changed[name] for name in moved), images, *new, loss

    def impair_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (velocity, images, lr) = model.unflatten(inputs)
        x = impairing(images, config)
        changed, velocity, metrics = update(model, config, IMPAIR, weights, velocity, x, (), lr)
        return *(changed[name] for name in ("params", *moved)), velocity, *metrics

    lr = Port("lr", "scalar", (), "lr")
    losses = [Port(name, "metric", ()) for name in ("noise_loss", "loss")]
    next_noise = (*model.next_ports(moved), *(following(port) for port in carried), losses[0])
    next_state = (*model.next_ports(["params", *moved]), following(momentum), losses[1])
    programs = [
        Program("label", batch, (*state, label, onehot(model, batch)), (following(label),), label_fn),
        Program("noise", config.noise_images, (*state, label, *carried), next_noise, noise_fn),
        Program("impair", config.noise_images, (*state, momentum, noise, lr), next_state, impair_fn),
    ]
    values = {
        **model.values(),
        "momentum": Value("carry", (size,), ZEROS),
        "label": Value("carry", (classes,), ZEROS),
        **{port.name: Value("carry", port.shape, ZEROS) for port in carried},
        "noise": Value("carry", shape, {"random": "noise"}),
    }
    names = ("epochs", "lr", "noise_epochs", "noise_steps")
    steps = plan.repeat("noise_epochs", plan.repeat("noise_steps", plan.run("noise")))
    epoch = plan.epochs(
        "epochs",
        plan.phase("noise", plan.reset(*(port.name for port in carried)), steps),
        plan.phase("impair", plan.run("impair")),
    )
    return Recipe(
        values,
        {"noise": Random(NOISE, "normal", shape)},
        programs,
        {name: float(getattr(config, name)) for name in names},
        [plan.phase("label", plan.batches(batch, plan.run("label"))), epoch],
    )
