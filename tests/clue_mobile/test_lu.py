"""Lipschitz unlearning: slopes by hand, the accumulated gradient against the loss as the paper writes it."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_linear as tiny
import torch
from torch import nn

from clue_mobile.flat import FlatModel
from clue_mobile.methods import lu
from pi_runtime import rng

IMAGES, LABELS = tiny.images((153, 51), (20, 240), (90, 90)), np.zeros(3, np.int64)


def test_slope_and_its_gradient_by_hand() -> None:
    clean = torch.tensor([[3.0, 4.0], [1.0, 0.0]], requires_grad=True)
    noisy = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    x, copy = torch.tensor([[0.5, 0.9], [0.1, 0.1]]), torch.tensor([[0.2, 0.5], [0.1, 0.6]])
    found = lu.slopes(clean, noisy, x, copy)
    assert found.tolist() == pytest.approx([5 / 0.5, 2 / 0.5])
    pulls = lu.pull(clean.detach(), noisy, x, copy)
    assert pulls.flatten().tolist() == pytest.approx([0.6 / 0.5, 0.8 / 0.5, 0, -1 / 0.5])
    (gradient,) = torch.autograd.grad(found.sum(), [clean])
    torch.testing.assert_close(gradient, pulls)


def test_equal_logits_pull_nowhere() -> None:
    same = torch.ones(2, 3)
    assert lu.pull(same, same, torch.zeros(2, 2), torch.ones(2, 2)).abs().max() == 0


def test_a_copy_stays_in_the_range_of_pixels() -> None:
    noise = torch.tensor([-9.0, 1.0, 9.0])
    assert lu.noised(torch.full((3,), 0.5), noise, 0.1).tolist() == pytest.approx([0, 0.6, 1])


def test_the_step_is_that_of_the_whole_loss() -> None:
    """The batch's sum of slopes over 4 copies, divided by 4, with the noisy branch detached."""
    module = tiny.linear()
    config = lu.Config(epochs=1, lr=0.05, copies=4, sigma=0.2, augment="none")
    log = lu.unlearn(module, tiny.SPEC, IMAGES, LABELS, config, seed=7, batch=3)

    order = rng.permutation(7, 0, 3)
    x = torch.from_numpy(IMAGES[order].reshape(3, 2).astype(np.float32) / 255)
    weight = torch.tensor(tiny.WEIGHT, requires_grad=True)
    loss = torch.tensor(0.0)
    for number in range(4):
        # two numbers a sample: a block of four for each copy
        noise = rng.normal(7, lu.NOISE, 0, order, (1, 1, 2), block_offset=number).reshape(3, 2)
        copy = torch.clamp(x + 0.2 * torch.from_numpy(noise), 0, 1)
        difference = x @ weight.T - (copy @ weight.T).detach()
        loss = loss + (difference.norm(dim=1) / (x - copy).norm(dim=1)).sum()
    (gradient,) = torch.autograd.grad(loss / 4, [weight])
    assert log[0]["loss"] == pytest.approx(loss.item() / 4, rel=1e-5)
    torch.testing.assert_close(module[1].weight.detach(), weight.detach() - 0.05 * gradient)
    assert gradient.abs().max() > 0.1


def test_every_copy_moves_the_running_statistics() -> None:
    """As the code's training mode does: the clean batch first, then each noisy one; the step itself not."""
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 3))
    config = lu.Config(epochs=1, lr=0.0, copies=2, sigma=0.2, augment="none")
    lu.unlearn(module, tiny.SPEC, IMAGES, LABELS, config, seed=7, batch=3)
    order = rng.permutation(7, 0, 3)
    x = IMAGES[order].reshape(3, 2) / 255
    mean = 0.1 * x.mean(0)
    for number in range(2):
        noise = rng.normal(7, lu.NOISE, 0, order, (1, 1, 2), block_offset=number).reshape(3, 2)
        mean = 0.9 * mean + 0.1 * np.clip(x + 0.2 * noise, 0, 1).mean(0)
    np.testing.assert_allclose(module[1].running_mean, mean, rtol=1e-5)


def test_no_program_grows_with_the_copies() -> None:
    recipe = lu.build(FlatModel(tiny.linear(), tiny.SPEC), lu.Config(copies=100), 2)
    assert [program.name for program in recipe.programs] == ["clean", "noisy", "step"]
    assert recipe.scalars["copies"] == 100
