"""The digits network learns scikit-learn's digits in seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clue_mobile.models import BUILTIN, load
from clue_mobile.models.digits_cnn import digits_cnn
from clue_mobile.training import TrainConfig, train


def test_convolutions_have_no_bias() -> None:
    convolutions = [module for module in digits_cnn().modules() if isinstance(module, torch.nn.Conv2d)]

    assert len(convolutions) == 3
    assert all(convolution.bias is None for convolution in convolutions)


def test_learns_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    training, test = order[:1350], order[1350:]
    spec = BUILTIN["digits_cnn"].spec
    assert spec.mean == pytest.approx([digits.images.mean() / 16], abs=1e-4)
    assert spec.std == pytest.approx([digits.images.std() / 16], abs=1e-4)

    history = train(
        load(spec, None, seed=0),
        spec,
        images[training],
        labels[training],
        TrainConfig(epochs=6, batch=64, augment="none"),
        validation=(images[test], labels[test]),
    )

    assert history[-1]["validation_accuracy"] >= 0.97
