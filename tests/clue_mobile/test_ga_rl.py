"""GA and RL on a model that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_linear as tiny
import torch

from clue_mobile.methods import ga, rl
from clue_mobile.methods.descent import cross_entropy
from pi_runtime import rng

X = np.array([0.6, 0.2])  # of the image (153, 51)


def test_cross_entropy_is_the_mean_over_the_batch() -> None:
    logits = torch.tensor([[0.0, np.log(3)], [7.0, 7.0]])
    target = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert cross_entropy(logits, target).item() == pytest.approx((-np.log(0.25) - np.log(0.5)) / 2)


def test_ga_climbs_the_cross_entropy_with_momentum() -> None:
    module = tiny.linear()
    config = ga.Config(epochs=2, lr=0.5, momentum=0.5, augment="none")
    log = ga.unlearn(module, tiny.SPEC, tiny.images((153, 51)), np.array([1]), config, batch=1)
    w, v, losses = np.array(tiny.WEIGHT), np.zeros((3, 2)), []
    for _ in range(2):
        p = tiny.softmax(w @ X)
        losses.append(-np.log(p[1]))
        v = 0.5 * v - np.outer(p - [0, 1, 0], X)
        w = w - 0.5 * v
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-6)
    assert losses[1] > losses[0]
    np.testing.assert_allclose(module[1].weight.detach(), w, rtol=1e-5)


def test_rl_goes_towards_labels_that_are_drawn_anew_each_epoch() -> None:
    module = tiny.linear()
    config = rl.Config(epochs=40, lr=0.5, momentum=0.0, augment="none")
    log = rl.unlearn(module, tiny.SPEC, tiny.images((153, 51)), np.array([1]), config, seed=3, batch=1)
    w, losses, drawn = np.array(tiny.WEIGHT), [], []
    for epoch in range(40):
        label = int(rng.integers(3, rl.DRAWN, epoch, [0], (), 3)[0])
        p = tiny.softmax(w @ X)
        losses.append(-np.log(p[label]))
        w = w - 0.5 * np.outer(p - np.eye(3)[label], X)
        drawn.append(label)
    assert set(drawn) == {0, 1, 2}  # the true label too
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-4)
    np.testing.assert_allclose(module[1].weight.detach(), w, rtol=1e-4)
