"""CLUE: energy loss + noisy-teacher KL + saliency mask, without retain data.

Patent application US 2026/0148064 A1; where the authors' code and their slides differ, both readings are
options of Config. `losses` and `saliency` are the method; `unlearn` is its eager loop, `build` the same loop
as programs and a plan.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.errors import ClueError
from clue_mobile.flat import BatchNorm, FlatModel
from clue_mobile.lowering.optimizer import sgd
from clue_mobile.methods import Samples, Watch
from clue_mobile.methods.batches import Batches
from clue_mobile.plan import Loss, Port, Program, Random, Recipe, Value
from clue_mobile.spec import ModelSpec

TITLE = "CLUE"
SOURCE = "patent application US 2026/0148064 A1 and the authors' code"
RETAIN = ""

Array = np.ndarray[Any, Any]

NOISE, SIGMA = 16, 17  # random streams


@dataclass(frozen=True)
class Config:
    """Hyperparameters of CLUE.

    epochs: at most this many passes. lr, momentum: SGD, constant lr, no weight decay. tau: absolute threshold
    of the saliency
    |w * dL/dw|, for the mean cross-entropy gradient of `saliency_batch` samples. temperature: "norm" (the
    sample's ||logits||, the authors' code) or a number (the slides). kl: "student_teacher" (the code) or
    "teacher_student" (the slides). sigma_low, sigma_high: standard deviation of the teacher's input noise, in
    units of pixels in [0, 1]. augment: "crop_flip" (the authors' loaders) or "none". batch_norm: "batch"
    (batch statistics, running ones updated: the code), "batch_keep_running" or "frozen". stop_accuracy,
    stop_every: leave once the forget accuracy, in percent, measured every so many steps on at most 256 of the
    images, is at most this; stop_every 0 never stops early. verify_accuracy: a request whose forget accuracy
    stays above this fails.
    """

    epochs: int = 2
    lr: float = 3e-4
    tau: float = 3e-3
    momentum: float = 0.9
    energy_weight: float = 1.0
    kl_weight: float = 1.0
    temperature: Literal["norm"] | float = "norm"
    kl: Literal["student_teacher", "teacher_student"] = "student_teacher"
    sigma_low: float = 0.5
    sigma_high: float = 1.0
    saliency_batch: int = 256
    augment: Literal["crop_flip", "none"] = "none"
    batch_norm: BatchNorm = "batch"
    stop_accuracy: float = 0.0
    stop_every: int = 0
    verify_accuracy: float = 50.0

    def __post_init__(self) -> None:
        for name, choices in (
            ("kl", ("student_teacher", "teacher_student")),
            ("augment", ("crop_flip", "none")),
            ("batch_norm", ("batch", "batch_keep_running", "frozen")),
        ):
            if getattr(self, name) not in choices:
                raise ClueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.temperature != "norm" and not (_is_number(self.temperature) and self.temperature > 0):
            raise ClueError(f'temperature must be "norm" or a number above 0, not {self.temperature!r}')
        for name, low, high in (
            ("epochs", 1, math.inf),
            ("saliency_batch", 1, math.inf),
            ("stop_every", 0, math.inf),
            ("lr", 0, math.inf),
            ("tau", 0, math.inf),
            ("momentum", 0, 1),
            ("energy_weight", -math.inf, math.inf),
            ("kl_weight", -math.inf, math.inf),
            ("sigma_low", 0, math.inf),
            ("sigma_high", 0, math.inf),
            ("stop_accuracy", -math.inf, math.inf),
            ("verify_accuracy", 0, 100),
        ):
            value = getattr(self, name)
            if not _is_number(value):
                raise ClueError(f"{name} must be a finite number, not {value!r}")
            if name in ("epochs", "saliency_batch", "stop_every") and not isinstance(value, int):
                raise ClueError(f"{name} must be a whole number, not {value}")
            if not low <= value <= high:
                limit = f"at least {low}" if value < low else f"at most {high}"
                raise ClueError(f"{name} must be {limit}, not {value}")
        if self.sigma_high < self.sigma_low:
            raise ClueError(f"sigma_high ({self.sigma_high}) must not be below sigma_low ({self.sigma_low})")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# the method


def energy_loss(logits: Tensor, temperature: Literal["norm"] | float) -> Tensor:
    """mean over the batch of sum_y exp(z_y / T); with T = ||z||, clamped at 1e-12 and differentiated through.
    logits: [N, K]."""
    if temperature == "norm":  # the clamp goes on the square: the root's gradient is infinite at zero
        return (
            torch.exp(logits / torch.sqrt((logits * logits).sum(1, keepdim=True).clamp_min(1e-24)))
            .sum(1)
            .mean()
        )
    return torch.exp(logits / temperature).sum(1).mean()


def kl_loss(student: Tensor, teacher: Tensor, direction: str) -> Tensor:
    """Batch mean of D_KL(student || teacher) or the reverse, of softmax distributions; logits [N, K] each."""
    p, q = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    if direction == "teacher_student":
        p, q = q, p
    return (torch.exp(p) * (p - q)).sum(1).mean()


def losses(student: Tensor, teacher: Tensor | None, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """(energy, KL, the weighted sum that is minimised); no teacher is needed where the KL weighs nothing."""
    energy = energy_loss(student, config.temperature)
    if teacher is None or config.kl_weight == 0:
        return energy, torch.zeros_like(energy), config.energy_weight * energy
    kl = kl_loss(student, teacher, config.kl)
    return energy, kl, config.energy_weight * energy + config.kl_weight * kl


def saliency(params: Tensor, grad_sum: Tensor, samples: int) -> Tensor:
    """R(w) = |w * dL_CE/dw| of the mean cross-entropy, from the gradient summed over `samples`; [P]."""
    return torch.abs(params * (grad_sum / samples))


def noisy(x: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The teacher's out-of-distribution input clip(x + sigma n, 0, 1); x, noise [N, C, H, W], sigma [N]."""
    return torch.clamp(x + sigma.view(-1, 1, 1, 1) * noise, 0, 1)


def cross_entropy_sum(logits: Tensor, onehot: Tensor) -> Tensor:
    """Cross-entropy with the true label, summed over the batch."""
    return -(onehot * F.log_softmax(logits, 1)).sum()


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
    """Forget `images` (uint8 [N, H, W, C], class indices `labels` [N]) in place; returns energy, kl and mask
    density of each step.

    `watch(model, values, row)` sees every step and may end the run by returning True; the values have the
    plan's names.
    """
    model, log = FlatModel(module, spec), []
    state = model.pack()
    momentum = torch.zeros_like(state["params"])
    data = Batches(images, labels, spec.num_classes, seed, config.augment)
    probe = np.arange(min(256, len(images))) * len(images) // min(256, len(images))
    for epoch in range(config.epochs):
        mask = torch.zeros_like(momentum)
        for group in data.cut(epoch, config.saliency_batch):
            grad_sum = torch.zeros_like(momentum)
            for part in np.split(group, range(batch, len(group), batch)):
                leaves = model.leaves(state)
                logits, _ = model.forward(leaves, state, data.x(epoch, part))
                grad_sum += model.gradient(cross_entropy_sum(logits, data.onehot(part)), leaves)
            mask = torch.maximum(
                mask, (saliency(state["params"], grad_sum, config.saliency_batch) > config.tau).float()
            )

        teacher = torch.zeros(len(images), spec.num_classes)
        for part in data.cut(epoch, batch):
            noise = data.normal(NOISE, epoch, part)
            sigma = data.uniform(SIGMA, epoch, part, config.sigma_low, config.sigma_high)
            teacher[part] = model.predict(state, noisy(data.x(epoch, part), noise, sigma)).detach()

        for step, part in enumerate(data.cut(epoch, batch), 1):
            leaves = model.leaves(state)
            logits, moved = model.forward(leaves, state, data.x(epoch, part), config.batch_norm)
            energy, kl, loss = losses(logits, teacher[part], config)
            grad = model.gradient(loss, leaves) * mask
            params, momentum = sgd(state["params"], momentum, grad, torch.tensor(config.lr), config.momentum)
            state = {key: t.detach() for key, t in {**state, **moved, "params": params}.items()}
            row = {
                "epoch": epoch,
                "step": step,
                "energy": energy.item(),
                "kl": kl.item(),
                "density": float(mask.mean()),
            }
            log.append(row)
            carried = {"momentum": momentum, "mask": mask, "grad_sum": grad_sum, "teacher": teacher}
            done = watch is not None and watch(model, {**state, **carried}, row)
            if config.stop_every and step % config.stop_every == 0:
                found = model.predict(state, data.x(epoch, probe, plain=True)).detach().argmax(1).numpy()
                correct = np.count_nonzero(found == labels[probe])
                done = done or bool(100 * correct / len(probe) <= config.stop_accuracy)
            if done:
                module.load_state_dict(model.state_dict(state), strict=False)
                return log
    module.load_state_dict(model.state_dict(state), strict=False)
    return log


# programs and plan


def build(model: FlatModel, config: Config, batch: int, train: Samples | None = None) -> Recipe:
    """CLUE as the programs saliency, mask, teacher, step and their plan. Raises ClueError where the batch
    does not fit."""
    if config.saliency_batch % batch:
        divisors = [
            str(b) for b in range(2, min(config.saliency_batch, 4096) + 1) if config.saliency_batch % b == 0
        ]
        raise ClueError(
            f"--batch {batch} does not divide saliency_batch {config.saliency_batch}: the mask needs whole "
            f"batches, take a --batch of {', '.join(divisors[-8:]) or 'none'}, or another saliency_batch"
        )
    size, classes = model.sizes["params"], model.spec.num_classes
    x = Port("x", "batch", (batch, *model.spec.input_shape), "x")
    onehot = Port("onehot", "batch", (batch, classes), "onehot")
    state = model.state_ports()
    momentum, mask = (Port(name, "carry", (size,), name) for name in ("momentum", "mask"))
    # golden sums large enough that some weights pass tau and some do not
    grad_sum = Port(
        "grad_sum",
        "carry",
        (size,),
        "grad_sum",
        golden=("normal", 0, 10 * config.saliency_batch * config.tau),
    )
    next_of = {p.name: dataclasses.replace(p, name=f"{p.name}_next") for p in (momentum, mask, grad_sum)}
    use_kl = config.kl_weight != 0
    cached = Port("teacher", "cache", (batch, classes), "teacher")

    def saliency_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (total, images, targets) = model.unflatten(inputs)
        leaves = model.leaves(weights)
        logits, _ = model.forward(leaves, weights, images)
        return (total + model.gradient(cross_entropy_sum(logits, targets), leaves),)

    def mask_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (old, total, tau) = model.unflatten(inputs)
        new = torch.maximum(
            old, (saliency(weights["params"], total, config.saliency_batch) > tau).to(old.dtype)
        )
        return new, new.mean()

    def teacher_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (images, noise, sigma) = model.unflatten(inputs)
        return (model.predict(weights, noisy(images, noise, sigma)),)

    moved_names = ["buffers"] if "buffers" in model.sizes and config.batch_norm == "batch" else []

    def loss_fn(logits: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
        energy, kl, loss = losses(logits, targets[0] if targets else None, config)
        return loss, energy.detach(), kl.detach()

    def step_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (velocity, on, images, *targets, lr) = model.unflatten(inputs)
        leaves = model.leaves(weights)
        logits, moved = model.forward(leaves, weights, images, config.batch_norm)
        loss, energy, kl = loss_fn(logits, *targets)
        params, velocity = sgd(
            weights["params"], velocity, model.gradient(loss, leaves) * on, lr, config.momentum
        )
        return params, *(moved[name] for name in moved_names), velocity, energy, kl

    tau, lr = Port("tau", "scalar", (), "tau"), Port("lr", "scalar", (), "lr")
    metrics = (Port("energy", "metric", ()), Port("kl", "metric", ()))
    noise_port = Port("noise", "random", x.shape, "noise")
    sigma_port = Port("sigma", "random", (batch,), "sigma")
    programs = [
        Program("saliency", batch, (*state, grad_sum, x, onehot), (next_of["grad_sum"],), saliency_fn),
        Program(
            "mask",
            batch,
            (*state, mask, grad_sum, tau),
            (next_of["mask"], Port("density", "metric", ())),
            mask_fn,
        ),
        Program(
            "teacher",
            batch,
            (*state, x, noise_port, sigma_port),
            (dataclasses.replace(cached, name="logits"),),
            teacher_fn,
        ),
        Program(
            "step",
            batch,
            (*state, momentum, mask, x, *((cached,) if use_kl else ()), lr),
            (*model.next_ports(["params", *moved_names]), next_of["momentum"], *metrics),
            step_fn,
        ),
    ]
    zeros = {"zeros": True}
    values = {
        **model.values(),
        "momentum": Value("carry", (size,), zeros),
        "mask": Value("carry", (size,), zeros, storage="bits"),
        "grad_sum": Value("carry", (size,), zeros),
    }
    randoms = {}
    teach = []
    if use_kl:
        values["teacher"] = Value("cache", (classes,), zeros)
        randoms = {
            "noise": Random(NOISE, "normal", model.spec.input_shape),
            "sigma": Random(SIGMA, "uniform", (), low=config.sigma_low, high=config.sigma_high),
        }
        teach = [plan.phase("teacher", plan.batches(batch, plan.run("teacher"), augment=config.augment))]
    body = [
        plan.phase(
            "saliency",
            plan.reset("mask"),
            plan.batches(
                config.saliency_batch,
                plan.reset("grad_sum"),
                plan.batches(batch, plan.run("saliency")),
                plan.run("mask"),
                augment=config.augment,
            ),
        ),
        *teach,
        plan.phase(
            "step",
            plan.batches(
                batch,
                plan.run("step"),
                plan.stop("predict", "stop_every", 256, "stop_accuracy"),
                augment=config.augment,
            ),
        ),
    ]
    scalars = {
        key: float(getattr(config, key)) for key in ("epochs", "lr", "tau", "stop_every", "stop_accuracy")
    }
    kept = [p for p in programs if use_kl or p.name != "teacher"]
    loss = Loss(
        loss_fn,
        (cached,) if use_kl else (),
        ("energy", "kl"),
        mask,
        config.batch_norm,
        "lr",
        config.momentum,
    )
    return Recipe(values, randoms, kept, scalars, [plan.epochs("epochs", *body)], loss)
