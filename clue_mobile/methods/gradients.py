"""Gradients of the cross-entropy in eval mode, as one flat vector: what methods on a server read from data.

Data sets here are read in parts of `batch`, never shuffled and never filled: a mean weighs each image once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clue_mobile.flat import FlatModel, State
from clue_mobile.methods.batches import Array, Batches


def parts(positions: Array, batch: int) -> list[Array]:
    """`positions` cut into consecutive parts of `batch`; the last may be shorter."""
    return [positions[start : start + batch] for start in range(0, len(positions), batch)]


def mean_gradient(model: FlatModel, state: State, data: Batches, epoch: int, batch: int) -> Tensor:
    """The gradient of the mean cross-entropy over all of `data`, [P]; `epoch` picks the augmentation."""
    total = torch.zeros_like(state["params"])
    for part in parts(np.arange(len(data.images)), batch):
        leaves = model.leaves(state)
        losses = _losses(model, state, leaves, data, epoch, part)
        total += model.gradient(losses.sum(), leaves)
    return total / len(data.images)


def single_gradients(
    model: FlatModel, state: State, data: Batches, epoch: int, positions: Array
) -> Iterator[Tensor]:
    """The gradient of the cross-entropy of each image of `positions` alone, [P] each."""
    for position in positions:
        leaves = model.leaves(state)
        yield model.gradient(_losses(model, state, leaves, data, epoch, np.array([position])).sum(), leaves)


def fisher_product(
    model: FlatModel, state: State, data: Batches, epoch: int, positions: Array, batch: int, vector: Tensor
) -> Tensor:
    """mean over `positions` of g (g . vector), g being an image's gradient, [P]; no g is ever stored.

    The products g . vector of a whole batch come from differentiating sum_i u_i g_i . vector by u, and the
    sum of the g weighted by them from one backward pass.
    """
    total = torch.zeros_like(vector)
    wanted = {name: v.detach() for name, v in model.named("params", vector).items()}
    for part in parts(positions, batch):
        leaves = model.leaves(state)
        losses = _losses(model, state, leaves, data, epoch, part)
        weights = torch.zeros_like(losses, requires_grad=True)
        sums = torch.autograd.grad(
            losses, list(leaves.values()), weights, create_graph=True, allow_unused=True
        )
        inner = torch.stack(
            [(g * w).sum() for g, w in zip(sums, wanted.values(), strict=True) if g is not None]
        ).sum()
        (products,) = torch.autograd.grad(inner, weights, retain_graph=True)
        total += model.gradient((losses * products).sum(), leaves)
    return total / len(positions)


def fisher_diagonal(model: FlatModel, state: State, data: Batches, positions: Array, group: int) -> Tensor:
    """The diagonal of the Fisher information, [P]: mean over groups of images of sum_y p_y (d(-log p_y))^2.

    group: images whose gradients are averaged before they are squared; at 1 this is the Fisher information
    proper.
    """
    total, groups = torch.zeros_like(state["params"]), parts(positions, group)
    for part in groups:
        leaves = model.leaves(state)
        log_p = F.log_softmax(model.forward(leaves, state, data.x(0, part).to(total))[0], 1)
        shares = log_p.detach().exp().mean(0)
        for share, mean in zip(shares, log_p.mean(0).unbind(), strict=True):
            total += share * model.gradient(mean, leaves, keep_graph=True) ** 2
    return total / len(groups)


def _losses(
    model: FlatModel, state: State, leaves: dict[str, Tensor], data: Batches, epoch: int, part: Array
) -> Tensor:
    """The cross-entropy of each image, [B], in eval mode."""
    logits, _ = model.forward(leaves, state, data.x(epoch, part).to(state["params"]))
    return F.cross_entropy(logits, torch.from_numpy(data.labels[part]), reduction="none")
