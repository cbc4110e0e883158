"""Optimizers against torch.optim."""

from __future__ import annotations

import pytest
import torch
from lowering_case import assert_close, assert_forward_only, draw

from clue_mobile.lowering import lower
from clue_mobile.lowering.optimizer import sgd


@pytest.mark.parametrize("mu", [0.0, 0.9])
def test_sgd_is_that_of_pytorch(mu: float) -> None:
    weights = draw(7)
    theirs = weights.clone().requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=0.03, momentum=mu)
    lr = torch.tensor(0.03, dtype=torch.float64)
    velocity = torch.zeros_like(weights)
    graph = lower(lambda p, v, g, rate: sgd(p, v, g, rate, mu), [weights, velocity, weights, lr])
    assert_forward_only(graph)

    for step in range(5):
        theirs.grad = draw(7, seed=step + 1)
        optimizer.step()
        weights, velocity = graph(weights, velocity, theirs.grad, lr)
        assert_close([weights], [theirs.detach()], 1e-14)


def test_a_weight_out_of_the_mask_coasts() -> None:
    one = torch.ones(1)
    params, velocity = sgd(one, one, torch.zeros(1), torch.tensor(0.5), 0.5)
    assert (params.item(), velocity.item()) == (0.75, 0.5)
