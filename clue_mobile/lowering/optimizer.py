"""Optimizers on the flat state, as forward operators."""

from __future__ import annotations

import torch
from torch import Tensor


def sgd(params: Tensor, momentum: Tensor, grad: Tensor, lr: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """One step of SGD with momentum: v = mu v + g; w = w - lr v.

    What torch.optim.SGD does with dampening 0, no Nesterov and no weight decay. params, momentum, grad: [P];
    lr: []. Returns (params', momentum').
    """
    momentum = mu * momentum + grad
    return params - lr * momentum, momentum


def adam(
    weights: Tensor,
    moments: tuple[Tensor, Tensor, Tensor],
    grad: Tensor,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """One step of Adam (Kingma and Ba, ICLR 2015) as torch.optim.Adam takes it.

    weights, grad: any shape. moments: the means of g and g^2 and, [2], what a mean of ones would be by now
    (1 - beta^t, which corrects the two; kept as a mean, since the power would lose digits); zeros at first.
    Returns (weights', moments').
    """
    first, second, ones = moments
    first = betas[0] * first + (1 - betas[0]) * grad
    second = betas[1] * second + (1 - betas[1]) * grad * grad
    ones = torch.stack([b * ones[i] + (1 - b) for i, b in enumerate(betas)])
    step = (first / ones[0]) / (torch.sqrt(second / ones[1]) + eps)
    return weights - lr * step, (first, second, ones)
