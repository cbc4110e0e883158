"""Boundary Expanding on a model that can be worked out by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_linear as tiny
import torch
from torch import nn

from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import be
from pi_runtime import rng

X = np.array([0.6, 0.2, 1.0])  # of the image (153, 51), and 1 for the bias


def by_hand(config: be.Config, seed: int) -> tuple[np.ndarray, list[float]]:
    """(weights and bias of four outputs [4, 3], the losses)."""
    bound = 1 / np.sqrt(2)
    shadow = rng.uniform(seed, be.SHADOW, 0, [0], (3,), -bound, bound)
    w = np.concatenate([np.hstack([tiny.WEIGHT, np.zeros((3, 1))]), shadow])
    v, losses = np.zeros_like(w), []
    for _ in range(config.epochs):
        p = tiny.softmax(w @ X)
        losses.append(-np.log(p[3]))
        v = config.momentum * v + np.outer(p - [0, 0, 0, 1], X)
        w = w - config.lr * v
    return w, losses


def test_the_shadow_class_is_taught_and_pruned() -> None:
    module = tiny.linear(bias=True)
    config = be.Config(epochs=3, lr=0.5, augment="none")
    log = be.unlearn(module, tiny.SPEC, tiny.images((153, 51)), np.array([1]), config, seed=4, batch=1)
    w, losses = by_hand(config, 4)
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-5)
    np.testing.assert_allclose(module[1].weight.detach(), w[:3, :2], rtol=1e-5)
    np.testing.assert_allclose(module[1].bias.detach(), w[:3, 2], rtol=1e-5)
    assert module(torch.ones(1, 1, 1, 2)).shape == (1, 3)


def test_the_shadow_class_may_stay() -> None:
    module = tiny.linear(bias=True)
    config = be.Config(epochs=3, lr=0.5, augment="none", keep_shadow=True)
    be.unlearn(module, tiny.SPEC, tiny.images((153, 51)), np.array([1]), config, seed=4, batch=1)
    w, _ = by_hand(config, 4)
    x = torch.tensor([0.6, 0.2]).view(1, 1, 1, 2)
    np.testing.assert_allclose(module(x).detach()[0], w @ X, rtol=1e-5)
    assert module(x).argmax() == 3
    np.testing.assert_array_equal(copy.deepcopy(module)(x).detach(), module(x).detach())
    assert set(module.state_dict()) == {"1.weight", "1.bias"}


def test_a_layer_without_a_bias_gets_none() -> None:
    wide = be.Widened(tiny.flat())
    assert (wide.size, wide.layer) == (2, "1")


def test_the_last_linear_layer_with_an_output_for_each_class_is_widened() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 3))
    assert be.last_linear(module, 3) == "4"
    with pytest.raises(ClueError, match=r"no nn\.Linear with 7 outputs"):
        be.last_linear(module, 7)


def test_what_cannot_be_widened_or_exported() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 3))
    module[2].requires_grad_(False)
    with pytest.raises(ClueError, match="'2' is frozen"):
        be.build(FlatModel(module, tiny.SPEC), be.Config(), 2)
    with pytest.raises(ClueError, match="a device serves the model's own classes"):
        be.build(tiny.flat(), be.Config(keep_shadow=True), 2)
