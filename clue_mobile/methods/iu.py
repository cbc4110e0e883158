"""Influence unlearning: one Newton-like step that takes the forget set's share out of the training loss.

Leaving n_f of N images out moves the minimum, to first order, by H^-1 (n_f / N) (mean gradient on the forget
set - mean gradient on the retain set). H is approximated by the Fisher information of single retain images,
I + mean(g g'), after WoodFisher (Singh and Alistarh 2020, arXiv 2004.14340).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, Watch, needed
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.config import COUNT, POSITIVE, Checked
from clue_mobile.methods.gradients import fisher_product, mean_gradient, single_gradients
from clue_mobile.spec import ModelSpec
from pi_runtime import rng

TITLE = "IU"
SOURCE = "Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023, arXiv 2304.04934"
RETAIN = "all retained training images (their mean gradient, and single gradients of 1,000 of them)"

Array = np.ndarray[Any, Any]

MEANS, SINGLES = 0, 1  # "epochs" of the augmentation, so that the two passes draw differently


@dataclass(frozen=True)
class Config(Checked):
    """Hyperparameters of IU; the defaults are those of the public code (Unlearn-Sparse, Unlearn-Saliency).

    alpha: length of the step. samples: single retain images for the inverse. augment: "crop_flip" (the
    authors' loaders) or "none".

    solve: "code" is the recursion of the public code. It keeps one vector o, which starts as the first
    image's gradient and is only ever scaled, so all it takes from the step is a multiple of that one
    gradient; it also reads two images more than it divides by. "paper" is the inverse that the paper means,
    (I + mean(g g'))^-1, by conjugate gradients to a residual of 1e-6 (at most 200 products). It keeps all
    gradients where they take at most memory_gib (1,000 of ResNet-20's are 1 GiB); else every product reads
    the images again, which takes many times as long.
    """

    alpha: float = 0.2
    samples: int = 1000
    augment: Literal["crop_flip", "none"] = "crop_flip"
    solve: Literal["code", "paper"] = "code"
    memory_gib: float = 2.0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "alpha": POSITIVE,
        "samples": COUNT,
        "memory_gib": POSITIVE,
    }


# the method


def influence(forget: Tensor, retain: Tensor, n_forget: int, n_retain: int) -> Tensor:
    """The gradient at the trained weights of the loss without the forget set, from the two mean gradients
    [P]: (n_f / N) (forget - retain)."""
    return n_forget / (n_forget + n_retain) * (forget - retain)


def recursion(vector: Tensor, gradients: Iterable[Tensor], n: int) -> Tensor:
    """The public code's WoodFisher: `vector` [P] after all `gradients` [P]."""
    result, o = vector.clone(), None
    for g in gradients:
        if o is None:
            o = g.clone()
            continue
        product = torch.dot(o, g)
        result = result - torch.dot(result, g) / (n + product) * o
        o = o - product / (n + product) * o
    return result


def inverse(
    vector: Tensor, product: Callable[[Tensor], Tensor], tolerance: float = 1e-6, limit: int = 200
) -> tuple[Tensor, float]:
    """((I + F)^-1 `vector`, the relative residual) by conjugate gradients; product(v) is F v."""
    x, residual = torch.zeros_like(vector), vector.clone()
    direction, square = residual.clone(), torch.dot(residual, residual)
    start = square.clone().clamp_min(torch.finfo(vector.dtype).tiny)
    for _ in range(limit):
        if square <= tolerance**2 * start:
            break
        image = direction + product(direction)
        step = square / torch.dot(direction, image)
        x, residual = x + step * direction, residual - step * image
        last, square = square, torch.dot(residual, residual)
        direction = residual + square / last * direction
    return x, float((square / start).sqrt())


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
    """One step of length `config.alpha` in eval mode, in place; returns one row: the lengths of the gradient
    difference and of the step, and the residual of the solve.

    The single images are drawn with `seed`: the authors take the first ones, but a data set may be in the
    order of its classes.
    """
    rest = needed("iu", retain)
    model = FlatModel(module, spec)
    state = model.pack()
    forget = Batches(images, labels, spec.num_classes, seed, config.augment)
    kept = Batches(rest.images, rest.labels, spec.num_classes, seed, config.augment)
    difference = influence(
        mean_gradient(model, state, forget, MEANS, batch),
        mean_gradient(model, state, kept, MEANS, batch),
        len(images),
        len(rest.images),
    )
    order, residual = rng.permutation(seed, SINGLES, len(rest.images)), 0.0
    if config.solve == "code":
        chosen = order[: config.samples + 2]
        step = recursion(difference, single_gradients(model, state, kept, SINGLES, chosen), config.samples)
    else:
        chosen = order[: config.samples]
        if len(chosen) * difference.nbytes <= config.memory_gib * 2**30:
            rows = difference.new_empty(len(chosen), len(difference))
            for row, gradient in zip(
                rows, single_gradients(model, state, kept, SINGLES, chosen), strict=True
            ):
                row.copy_(gradient)
            step, residual = inverse(difference, lambda v: rows.T @ (rows @ v) / len(rows))
        else:
            step, residual = inverse(
                difference, lambda v: fisher_product(model, state, kept, SINGLES, chosen, batch, v)
            )
    state = {**state, "params": state["params"] + config.alpha * step}
    lengths = {"difference": float(difference.norm()), "change": config.alpha * float(step.norm())}
    note = {"epoch": 0, "step": 1, **lengths, "residual": residual}
    if watch is not None:
        watch(model, state, note)
    module.load_state_dict(model.state_dict(state), strict=False)
    return [note]
