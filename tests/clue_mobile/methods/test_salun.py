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
from clue_mobile.methods import Samples, salun
from clue_mobile.methods.salun import Config

WEIGHT = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.0]])


def test_the_mask_keeps_the_largest_gradients() -> None:
    gradient = torch.tensor([0.1, -3.0, 0.0, 2.0, -0.2])
    assert salun.salient(gradient, 0.5).tolist() == [0, 1, 0, 1, 0]  # 2.5 rounds down
    assert salun.salient(gradient, 0.6).tolist() == [0, 1, 0, 1, 1]
    assert salun.salient(gradient, 0.0).sum() == 0
    assert salun.salient(gradient, 1.0).sum() == 5


def test_random_labels() -> None:
    positions, labels = np.arange(3000), np.full(3000, 2)
    any_label = salun.random_labels(5, 0, positions, labels, 4, "any")
    other = salun.random_labels(5, 0, positions, labels, 4, "other")
    assert np.bincount(any_label, minlength=4) == pytest.approx(750, abs=120)
    assert np.bincount(other, minlength=4)[[0, 1, 3]] == pytest.approx(1000, abs=120)
    assert 2 not in other
    again = salun.random_labels(5, 0, positions[7:9], labels[7:9], 4, "any")
    assert np.array_equal(again, any_label[7:9])  # whatever batch a sample is in
    assert not np.array_equal(salun.random_labels(5, 1, positions, labels, 4, "any"), any_label)


def gradient(weight: np.ndarray, samples: Samples, labels: np.ndarray) -> np.ndarray:
    x = samples.images[:, 0, :, 0] / 255
    p = softmax(x @ weight.T)
    return ((p - np.eye(3)[labels])[..., None] * x[:, None]).mean(0)


@pytest.mark.parametrize(("outside", "labels"), [("kept", "any"), ("decay", "other")])
def test_two_epochs_by_hand(outside: str, labels: str) -> None:
    """A step on the forget set, one on the retain set, and again; the momentum goes through all four."""
    forget, rest = pictures(4, seed=1), pictures(7, seed=2)
    config = Config(
        epochs=2, lr=0.5, momentum=0.5, weight_decay=0.1, density=0.5, augment="none", outside=outside,
        labels=labels,
    )  # fmt: skip
    w, v = WEIGHT.copy(), np.zeros((3, 2))
    saliency = np.abs(gradient(w, forget, forget.labels))
    mask = (saliency >= np.sort(saliency.ravel())[3]).astype(float)
    assert mask.sum() == 3
    losses = []
    for epoch in range(2):
        drawn = salun.random_labels(9, epoch, np.arange(4), forget.labels, 3, labels)
        for samples, targets in ((forget, drawn), (rest, rest.labels)):
            x = samples.images[:, 0, :, 0] / 255
            losses.append(-np.log(softmax(x @ w.T)[np.arange(len(x)), targets]).mean())
            g = gradient(w, samples, targets)
            g = (g + 0.1 * w) * mask if outside == "kept" else g * mask + 0.1 * w
            v = 0.5 * v + g
            w = w - 0.5 * v
    module = linear(WEIGHT).float()
    # a batch of 28 is the 4 images seven times, and the 7 four times
    log = salun.unlearn(module, LINEAR, *forget, config, seed=9, batch=28, retain=rest)
    np.testing.assert_allclose(module[1].weight.detach(), w, rtol=1e-5, atol=1e-6)
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-5)
    assert [row.get("retain", 0) for row in log] == [0, 1, 0, 1]
    assert {row["density"] for row in log} == {0.5}
    unmoved = module[1].weight.detach().numpy() == WEIGHT.astype(np.float32)
    assert np.array_equal(unmoved, mask == 0) == (outside == "kept")


def test_mixed_gives_the_retain_set_its_true_labels() -> None:
    forget, rest = pictures(4, seed=1), pictures(7, seed=2)
    config = Config(epochs=1, lr=0.5, density=1.0, weight_decay=0, augment="none", order="mixed")
    module = linear(WEIGHT).float()
    (row,) = salun.unlearn(module, LINEAR, *forget, config, seed=9, batch=11, retain=rest)
    drawn = salun.random_labels(9, 0, np.arange(4), forget.labels, 3, "any")
    both = Samples(np.concatenate([forget.images, rest.images]), np.concatenate([drawn, rest.labels]))
    w = WEIGHT - 0.5 * gradient(WEIGHT, both, both.labels)
    np.testing.assert_allclose(module[1].weight.detach(), w, rtol=1e-5, atol=1e-6)
    assert row["density"] == 1


def digits(weights: Path, data: Dataset, **given: Any) -> tuple[float, float, Any, list[dict[str, float]]]:
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, weights)
    forget, rest = data.train.of_class(3), data.train.without_class(3)
    before = torch.get_rng_state()
    log = salun.unlearn(
        module,
        spec,
        forget.images,
        forget.labels,
        Config(**{"epochs": 2, "lr": 0.05, "augment": "none", **given}),
        batch=32,
        retain=Samples(rest.images, rest.labels),
    )
    assert torch.equal(before, torch.get_rng_state())
    return digits_accuracy(module, forget), digits_accuracy(module, rest), state(module), log


@pytest.mark.parametrize("order", ["forget_first", "mixed"])
def test_digits(digits_weights: Path, digits_data: Dataset, order: str) -> None:
    forget, rest, one, _ = digits(digits_weights, digits_data, order=order)
    assert forget < 40
    assert rest > 90
    assert same(one, digits(digits_weights, digits_data, order=order)[2])


def test_the_stop_is_measured_on_the_forget_set(digits_weights: Path, digits_data: Dataset) -> None:
    *_, log = digits(digits_weights, digits_data, lr=0.0, stop_every=1, stop_accuracy=100.0)
    assert len(log) == 1
    *_, log = digits(digits_weights, digits_data, epochs=1, lr=0.0, stop_every=1, stop_accuracy=10.0)
    assert len(log) == 4 + 31  # 111 and 976 images in batches of 32


def test_what_does_not_fit() -> None:
    with pytest.raises(ClueError, match="salun needs all retained training images"):
        salun.unlearn(linear(WEIGHT), LINEAR, *pictures(3), Config())
    with pytest.raises(ClueError, match='stop_every must be 0 with order "mixed"'):
        methods.configure("salun", {"order": "mixed", "stop_every": 1})
    with pytest.raises(ClueError, match="density must be at most 1"):
        methods.configure("salun", {"density": 50})
