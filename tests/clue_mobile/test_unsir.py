"""UNSIR by hand: Adam, the noise's loss, and the impair step, whose label is 0 whatever the class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_linear as tiny
import torch

from clue_mobile.errors import ClueError
from clue_mobile.lowering.optimizer import adam
from clue_mobile.methods import Samples, unsir
from pi_runtime import rng

IMAGES, LABELS = tiny.images((153, 51)), np.array([1])
ONE: dict[str, Any] = {"noise_epochs": 1, "noise_steps": 1, "noise_images": 4, "lr": 0.5, "impair_copies": 2}


def test_adam_as_the_paper_writes_it() -> None:
    generator = np.random.default_rng(0)
    weights = generator.normal(size=6)
    found, moments = torch.tensor(weights), tuple(torch.zeros(n, dtype=torch.float64) for n in (6, 6, 2))
    m, v = np.zeros(6), np.zeros(6)
    for t in range(1, 21):
        gradient = generator.normal(size=6)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weights = weights - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        found, moments = adam(found, moments, torch.tensor(gradient), 0.1)
    np.testing.assert_allclose(found, weights, rtol=1e-9)


@pytest.mark.full  # importing torch's takes longer than all else here
def test_adam_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    leaf = torch.randn(6, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.1)
    weights, moments = leaf.detach().clone(), (torch.zeros(6), torch.zeros(6), torch.zeros(2))
    for _ in range(20):
        leaf.grad = torch.randn(6, generator=generator)
        optimizer.step()
        weights, moments = adam(weights, moments, leaf.grad, 0.1)
        torch.testing.assert_close(weights, leaf.detach(), rtol=1e-5, atol=1e-6)


def test_the_noises_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, np.log(3)], [0.0, 0.0]])
    noise = torch.tensor([1.0, 2.0, 3.0, 0.0]).view(2, 1, 1, 2)
    found = unsir.noise_loss(logits, torch.tensor([0.0, 1.0]), noise, 0.1)
    assert found.item() == pytest.approx(0.1 * (5 + 9) / 2 - (-np.log(0.75) - np.log(0.5)) / 2)


def noise_after_one_step(label: int, images: int = 4) -> np.ndarray:
    """[M, 2]; Adam's first step is one of its size against the gradient's sign."""
    drawn = rng.normal(6, unsir.NOISE, 0, [0], (images, 1, 1, 2))[0].reshape(images, 2)
    w = np.array(tiny.WEIGHT)
    gradient = 0.1 * 2 * drawn - (tiny.softmax(drawn @ w.T) - np.eye(3)[label]) @ w
    return drawn - 0.1 * np.sign(gradient)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_impair_step_teaches_class_0_with_the_first_images_of_noise(label: int) -> None:
    module = tiny.linear()
    config = unsir.Config(**ONE, impair_images=3)
    (row,) = unsir.unlearn(module, tiny.SPEC, IMAGES, np.array([label]), config, seed=6)
    x, w = noise_after_one_step(label)[:3], np.array(tiny.WEIGHT)
    p = tiny.softmax(x @ w.T)
    assert row["loss"] == pytest.approx(-np.log(p[:, 0]).mean(), rel=1e-4)
    wanted = w - 0.5 * (p - [1, 0, 0]).T @ x / 3  # two copies of each change nothing of the mean
    np.testing.assert_allclose(module[1].weight.detach(), wanted, rtol=1e-4, atol=1e-6)


def test_sixty_images() -> None:
    config = unsir.Config()
    found = unsir.impairing(torch.arange(256.0).view(256, 1, 1, 1), config)
    assert found.flatten().tolist() == [0, 1, 2] * 20


def test_the_papers_reading_mixes_retain_images_and_repairs() -> None:
    """One batch in each epoch, so that each is one of Adam's first steps: lr against the gradient's sign."""
    module = tiny.linear()
    retain = Samples(tiny.images((250, 10), (30, 200), (60, 60)), np.array([0, 2, 2]))
    given = {**ONE, "reading": "paper", "lr": 0.02, "repair_lr": 0.01, "retain_per_class": 1}
    unsir.unlearn(module, tiny.SPEC, IMAGES, LABELS, unsir.Config(**given), seed=6, batch=50, retain=retain)
    x = retain.images[:2].reshape(2, 2) / 255  # the first of each class
    y = np.eye(3)[[0, 2]]
    noise = noise_after_one_step(1)
    mixed, labels = np.vstack([noise, noise, x]), np.vstack([np.tile(np.eye(3)[1], (8, 1)), y])
    w = np.array(tiny.WEIGHT)
    for inputs, targets, lr in ((mixed, labels, 0.02), (x, y, 0.01)):
        w = w - lr * np.sign((tiny.softmax(inputs @ w.T) - targets).T @ inputs)
    np.testing.assert_allclose(module[1].weight.detach(), w, rtol=1e-4)


def test_the_papers_reading_needs_retain_data() -> None:
    config = unsir.Config(reading="paper")
    with pytest.raises(ClueError, match="needs images of the other classes"):
        unsir.unlearn(tiny.linear(), tiny.SPEC, IMAGES, LABELS, config)
    with pytest.raises(ClueError, match="a device can run reading=code only"):
        unsir.build(tiny.flat(), config, 2)
