"""Optimizers on the flat state, as forward operators."""

from __future__ import annotations

from torch import Tensor


def sgd(params: Tensor, momentum: Tensor, grad: Tensor, lr: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """One step of SGD with momentum: v = mu v + g; w = w - lr v.

    What torch.optim.SGD does with dampening 0, no Nesterov and no weight decay. params, momentum, grad: [P];
    lr: []. Returns (params', momentum').
    """
    momentum = mu * momentum + grad
    return params - lr * momentum, momentum
