from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from server_case import LINEAR, digits_accuracy, linear, pictures, same, softmax, state

from clue_mobile import methods, models
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, fisher
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.fisher import Config
from clue_mobile.methods.gradients import fisher_diagonal
from pi_runtime import rng

WEIGHT = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.0]])
BIAS = np.array([0.1, 0.0, -0.3])


def forward(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """(x [N, 2], probabilities [N, 3]) of the linear model."""
    x = samples.images[:, 0, :, 0] / np.float32(255).astype(np.float64)
    return x, softmax(x @ WEIGHT.T + BIAS)


def diagonal(samples: Samples, positions: list[int], group: int) -> tuple[np.ndarray, np.ndarray]:
    model = FlatModel(linear(WEIGHT, BIAS), LINEAR)
    state = model.pack()
    data = Batches(*samples, 3, 0, "none")
    found = fisher_diagonal(model, state, data, np.array(positions), group)
    parts = model.named("params", found)
    return parts["1.weight"].numpy(), parts["1.bias"].numpy()


def test_the_diagonal_of_softmax_regression() -> None:
    """sum_y p_y (p_k - [k = y])^2 x_j^2 is p_k (1 - p_k) x_j^2."""
    samples = pictures(5)
    x, p = forward(samples)
    spread = p * (1 - p)
    weight, bias = diagonal(samples, [0, 2, 3], 1)
    np.testing.assert_allclose(weight, (spread[..., None] * x[:, None] ** 2)[[0, 2, 3]].mean(0), rtol=1e-6)
    np.testing.assert_allclose(bias, spread[[0, 2, 3]].mean(0), rtol=1e-6)


def test_the_diagonal_of_groups_squares_the_mean_gradient() -> None:
    samples = pictures(3)
    x, p = forward(samples)
    expected = np.zeros((3, 2))
    for group in ([0, 1], [2]):  # the last group is short
        for y in range(3):
            gradients = (p - np.eye(3)[y])[..., None] * x[:, None]
            expected += p[group, y].mean() * gradients[group].mean(0) ** 2 / 2
    np.testing.assert_allclose(diagonal(samples, [0, 1, 2], 2)[0], expected, rtol=1e-6)


def test_the_last_layer_is_found() -> None:
    model = FlatModel(models.load(models.resolve_spec("digits_cnn"), None), models.resolve_spec("digits_cnn"))
    entries = tuple(entry for entry in model.entries if entry.value == "params")
    assert fisher.head(entries, 10) == {"fc.weight", "fc.bias"}
    assert fisher.head(entries, 64) == {"conv3.weight", "bn3.weight", "bn3.bias"}
    assert fisher.head(entries, 11) == set()


# 1 / F: 100, 10,000, 1e8 (F = 0)
FISHER = torch.tensor([[1e-2, 1e-4], [0.0, 1.0], [1.0, 0.25]], dtype=torch.float64) - 1e-8
ONES = torch.ones(3, 2, dtype=torch.float64)


def test_the_variance_of_a_hidden_layer() -> None:
    mean, variance = fisher.noise(ONES, FISHER.clamp_min(0), Config(alpha=0.01), False, [1])
    assert torch.equal(mean, ONES)
    rows = [(100 + 1000) / 2, (1000 + 1) / 2, (1 + 4) / 2]  # 1 / F is at most 1,000; mean over the inputs
    np.testing.assert_allclose(variance, 0.01 * np.repeat(rows, 2).reshape(3, 2), rtol=1e-6)


def test_the_variance_of_a_vector_is_ten_times_as_much() -> None:
    mean, variance = fisher.noise(ONES[:, 0], FISHER[:, 0].clamp_min(0), Config(alpha=0.01), False, [1])
    assert torch.equal(mean, ONES[:, 0])
    np.testing.assert_allclose(variance, [10.0, 100.0, 0.1], rtol=1e-6)


def test_the_last_layer_loses_the_class() -> None:
    mean, variance = fisher.noise(ONES, FISHER.clamp_min(0), Config(alpha=0.01), True, [1])
    assert mean.tolist() == [[1, 1], [0, 0], [1, 1]]
    rows = [10 * 0.01 * 100, 1e-3, 10 * 0.01 * 2.5]  # 1 / F is at most 100
    np.testing.assert_allclose(variance, np.repeat(rows, 2).reshape(3, 2), rtol=1e-6)
    mean, variance = fisher.noise(ONES[:, 0], FISHER[:, 0].clamp_min(0), Config(alpha=0.01), True, [1])
    assert mean.tolist() == [1, 0, 1]
    np.testing.assert_allclose(variance, [10.0, 1e-3, 0.1], rtol=1e-6)
    mean, _ = fisher.noise(ONES, FISHER.clamp_min(0), Config(erase=False), True, [1])
    assert torch.equal(mean, ONES)


def test_the_papers_variance() -> None:
    mean, variance = fisher.noise(ONES, FISHER, Config(alpha=0.04, reading="paper"), True, [1])
    assert torch.equal(mean, ONES)
    np.testing.assert_allclose(variance[0], [2.0, 20.0], rtol=1e-6)  # sqrt(0.04 / 0.01), sqrt(0.04 / 1e-4)
    np.testing.assert_allclose(variance[2], [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("whole", [True, False])
def test_the_noise_is_drawn_by_the_seed(whole: bool) -> None:
    """Class 2 is forgotten, wholly or in part: only then is there nothing left of it to read."""
    samples = pictures(30)
    gone = samples.labels == 2
    if not whole:
        gone[np.flatnonzero(gone)[0]] = False
    rest = Samples(samples.images[~gone], samples.labels[~gone])
    module = linear(WEIGHT, BIAS)
    config = Config(alpha=1e-4)
    fisher.unlearn(module, LINEAR, samples.images[gone], samples.labels[gone], config, seed=4, retain=rest)
    x, p = forward(rest)
    information = ((p * (1 - p))[..., None] * x[:, None] ** 2).mean(0)
    variance = 10 * 1e-4 * np.minimum(1 / (information + 1e-8), 100).mean(1, keepdims=True) + np.zeros((3, 2))
    mean = WEIGHT.copy()
    if whole:
        mean[2], variance[2] = 0, 1e-3
    drawn = rng.normal(4, fisher.NOISE, 0, [0], (9,))[0, :6].reshape(3, 2)
    np.testing.assert_allclose(module[1].weight.detach(), mean + np.sqrt(variance) * drawn, rtol=1e-6)


def digits(weights: Path, data: Dataset, **given: Any) -> tuple[float, float, dict[str, torch.Tensor]]:
    """(accuracy on the forgotten class, on the others, the weights)."""
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, weights)
    forget, rest = data.train.of_class(3), data.train.without_class(3)
    before = torch.get_rng_state()
    (row,) = fisher.unlearn(
        module, spec, forget.images, forget.labels, Config(**given), retain=Samples(rest.images, rest.labels)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert row["fisher"] > 0
    assert row["deviation"] > 0
    return digits_accuracy(module, forget), digits_accuracy(module, rest), state(module)


def test_digits(digits_weights: Path, digits_data: Dataset) -> None:
    forget, rest, one = digits(digits_weights, digits_data, samples=64, group=8, alpha=1e-7)
    assert forget < 20
    assert rest > 60
    assert same(one, digits(digits_weights, digits_data, samples=64, group=8, alpha=1e-7)[2])


def test_without_erasing_the_class_it_is_still_known(digits_weights: Path, digits_data: Dataset) -> None:
    forget, rest, _ = digits(digits_weights, digits_data, samples=64, group=8, alpha=1e-6, erase=False)
    assert forget > 90
    assert rest > 90


def test_watch_and_what_it_needs() -> None:
    samples, seen = pictures(6), []
    module = linear(WEIGHT, BIAS)
    with pytest.raises(ClueError, match="fisher needs all retained training images"):
        fisher.unlearn(module, LINEAR, *samples, Config())
    fisher.unlearn(
        module,
        LINEAR,
        *samples,
        Config(),
        retain=samples,
        watch=lambda model, values, row: seen.append(model.state_dict(values)),
    )
    assert torch.equal(seen[0]["1.weight"], module[1].weight)
    with pytest.raises(ClueError, match="reading must be one of code, paper"):
        methods.configure("fisher", {"reading": "both"})
