"""CLUE: energy loss + noisy-teacher KL + saliency mask, without retain data.

Patent application US 2026/0148064 A1; where the authors' code and their slides differ, both readings are
options of Config. `losses` and `saliency` are the method; `unlearn` is its eager loop, `build` the same loop
as programs and a plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, Watch, descent
from clue_mobile.methods.config import ANY, COUNT, POSITIVE, DescentConfig, is_number
from clue_mobile.methods.descent import ZEROS, Descent, Objective, Steps, following
from clue_mobile.plan import Port, Program, Random, Recipe, Value
from clue_mobile.spec import ModelSpec

TITLE = "CLUE"
SOURCE = "patent application US 2026/0148064 A1 and the authors' code"
RETAIN = ""

Array = np.ndarray[Any, Any]

NOISE, SIGMA = 16, 17  # random streams


@dataclass(frozen=True)
class Config(DescentConfig):
    """Hyperparameters of CLUE, besides those of its steps.

    tau: absolute threshold of the saliency |w * dL/dw|, for the mean cross-entropy gradient of
    `saliency_batch` samples. temperature: "norm" (the sample's ||logits||, the authors' code) or a number
    (the slides). kl: "student_teacher" (the code) or "teacher_student" (the slides). sigma_low, sigma_high:
    standard deviation of the teacher's input noise, in units of pixels in [0, 1]. augment "crop_flip" and
    batch_norm "batch" are the authors'; the other defaults are a cautious start.

    Two choices do less work than the authors (benchmarks/less_work). refresh: mask and teacher are made anew
    after so many samples, of these alone (0: once an epoch, of all); a request that stops early then never
    pays for the samples that it does not step on. mask_per "request": the mask is made once, before the first
    epoch.
    """

    epochs: int = 2
    lr: float = 3e-4
    tau: float = 3e-3
    energy_weight: float = 1.0
    kl_weight: float = 1.0
    temperature: Literal["norm"] | float = "norm"
    kl: Literal["student_teacher", "teacher_student"] = "student_teacher"
    sigma_low: float = 0.5
    sigma_high: float = 1.0
    saliency_batch: int = 256
    augment: Literal["crop_flip", "none"] = "none"
    refresh: int = 0
    mask_per: Literal["epoch", "request"] = "epoch"

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **DescentConfig.LIMITS,
        "saliency_batch": COUNT,
        "refresh": POSITIVE,
        "tau": POSITIVE,
        "energy_weight": ANY,
        "kl_weight": ANY,
        "sigma_low": POSITIVE,
        "sigma_high": POSITIVE,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature != "norm" and not (is_number(self.temperature) and self.temperature > 0):
            raise ClueError(f'temperature must be "norm" or a number above 0, not {self.temperature!r}')
        if self.sigma_high < self.sigma_low:
            raise ClueError(f"sigma_high ({self.sigma_high}) must not be below sigma_low ({self.sigma_low})")
        if self.refresh % self.saliency_batch:
            raise ClueError(
                f"refresh must be 0 or a multiple of saliency_batch ({self.saliency_batch}), not "
                f"{self.refresh}"
            )


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


def objective(config: Config) -> Objective:
    """`losses` as the steps minimise it; the teacher's logits are its target, where the KL weighs."""

    def fn(logits: Tensor, *teacher: Tensor) -> tuple[Tensor, ...]:
        energy, kl, loss = losses(logits, teacher[0] if teacher else None, config)
        return loss, energy.detach(), kl.detach()

    return Objective(fn, ("energy", "kl"))


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
    run = Descent(module, spec, images, labels, config, seed=seed, batch=batch, watch=watch)
    model, data = run.model, run.data
    teacher = torch.zeros(len(images), spec.num_classes)

    def targets(epoch: int, part: Array) -> tuple[Tensor]:
        return (teacher[part],)

    def made_mask(epoch: int, within: Array | None) -> tuple[Tensor, Tensor]:
        """The mask, and the gradient sum of the last saliency batch."""
        mask = grad_sum = torch.zeros_like(run.state["params"])
        for group in data.cut(epoch, config.saliency_batch, within):
            grad_sum = torch.zeros_like(mask)
            for part in np.split(group, range(batch, len(group), batch)):
                leaves = model.leaves(run.state)
                logits, _ = model.forward(leaves, run.state, data.x(epoch, part))
                grad_sum += model.gradient(cross_entropy_sum(logits, data.onehot(part)), leaves)
            salient = saliency(run.state["params"], grad_sum, config.saliency_batch) > config.tau
            mask = torch.maximum(mask, salient.float())
        return mask, grad_sum

    once = config.mask_per == "request"
    mask, grad_sum = made_mask(0, None) if once else (torch.empty(0), torch.empty(0))
    for epoch in range(config.epochs):
        steps = 0
        for within in data.cut(epoch, config.refresh) if config.refresh else (None,):
            if not once:
                mask, grad_sum = made_mask(epoch, within)
            for part in data.cut(epoch, batch, within):
                noise = data.normal(NOISE, epoch, part)
                sigma = data.uniform(SIGMA, epoch, part, config.sigma_low, config.sigma_high)
                teacher[part] = model.predict(run.state, noisy(data.x(epoch, part), noise, sigma)).detach()
            if run.epoch(
                epoch,
                objective(config),
                targets,
                mask=mask,
                notes={"density": float(mask.mean())},
                carried={"grad_sum": grad_sum, "teacher": teacher.clone()},
                within=within,
                before=steps,
            ):
                return run.finish()
            steps += 0 if within is None else len(within) // batch
    return run.finish()


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
    classes = model.spec.num_classes
    cached = Port("teacher", "cache", (batch, classes), "teacher")
    targets = (cached,) if config.kl_weight != 0 else ()
    steps = Steps(model, config, batch, objective(config), targets, mask=True)
    mask, grad_sum = steps.carry("mask"), steps.carry("grad_sum")
    # golden sums large enough that some weights pass tau and some do not
    wide = ("normal", 0, 10 * config.saliency_batch * config.tau)
    grad_sum = dataclasses.replace(grad_sum, golden=wide)

    def saliency_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (total, images, labels) = model.unflatten(inputs)
        leaves = model.leaves(weights)
        logits, _ = model.forward(leaves, weights, images)
        return (total + model.gradient(cross_entropy_sum(logits, labels), leaves),)

    def mask_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (old, total, tau) = model.unflatten(inputs)
        salient = saliency(weights["params"], total, config.saliency_batch) > tau
        new = torch.maximum(old, salient.to(old.dtype))
        return new, new.mean()

    def teacher_fn(*inputs: Tensor) -> tuple[Tensor, ...]:
        weights, (images, noise, sigma) = model.unflatten(inputs)
        return (model.predict(weights, noisy(images, noise, sigma)),)

    state, x, onehot = model.state_ports(), descent.pixels(model, batch), descent.onehot(model, batch)
    tau, density = Port("tau", "scalar", (), "tau"), Port("density", "metric", ())
    noise = Port("noise", "random", x.shape, "noise")
    sigma = Port("sigma", "random", (batch,), "sigma")
    logits = dataclasses.replace(cached, name="logits")
    programs = [
        Program("saliency", batch, (*state, grad_sum, x, onehot), (following(grad_sum),), saliency_fn),
        Program("mask", batch, (*state, mask, grad_sum, tau), (following(mask), density), mask_fn),
    ]
    values = {**steps.values(), "grad_sum": Value("carry", grad_sum.shape, ZEROS)}
    randoms = {}
    salient = plan.phase(
        "saliency",
        plan.reset("mask"),
        plan.batches(
            config.saliency_batch,
            plan.reset("grad_sum"),
            plan.batches(batch, plan.run("saliency")),
            plan.run("mask"),
            augment=config.augment,
        ),
    )
    body = [] if config.mask_per == "request" else [salient]
    if targets:
        values["teacher"] = Value("cache", (classes,), ZEROS)
        randoms = {
            "noise": Random(NOISE, "normal", model.spec.input_shape),
            "sigma": Random(SIGMA, "uniform", (), low=config.sigma_low, high=config.sigma_high),
        }
        programs.append(Program("teacher", batch, (*state, x, noise, sigma), (logits,), teacher_fn))
        taught = plan.batches(batch, plan.run("teacher"), augment=config.augment)
        body.append(plan.phase("teacher", taught))
    programs.append(steps.program())
    body.append(steps.phase())
    if config.refresh:
        body = [plan.batches(config.refresh, *body, augment=config.augment)]
    whole = [plan.epochs("epochs", *body)]
    if config.mask_per == "request":
        whole.insert(0, salient)
    return Recipe(values, randoms, programs, steps.scalars("tau"), whole, steps.loss())
