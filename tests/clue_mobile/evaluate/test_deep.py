"""Forgotten or only hidden: a masked output, a retrained model and a shadow class on the digits."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clue_mobile import methods, models
from clue_mobile.data import Dataset, Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate import metrics
from clue_mobile.evaluate.deep import confusion, deep_scores, extended
from clue_mobile.evaluate.eager import evaluating, features, final_linear, predictor
from clue_mobile.spec import ModelSpec

FORGET = 3


@pytest.fixture(scope="module")
def original(digits_weights: Path) -> nn.Module:
    return models.load(models.resolve_spec("digits_cnn"), digits_weights)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return models.resolve_spec("digits_cnn")


@pytest.fixture(scope="module")
def retrained(spec: ModelSpec, digits_data: Dataset) -> nn.Module:
    from clue_mobile import training

    module = models.load(spec, None, seed=1)
    config = training.TrainConfig(
        epochs=5, batch=64, augment="none", precision="float32", exclude_class=FORGET
    )
    training.train(module, spec, digits_data.train.images, digits_data.train.labels, config)
    return module


def test_what_tells_forgetting_from_a_masked_output(
    original: nn.Module, retrained: nn.Module, spec: ModelSpec, digits_data: Dataset
) -> None:
    old, first = extended(original, spec, digits_data, FORGET, seed=0)
    masked = copy.deepcopy(original)
    forget = digits_data.train.of_class(FORGET)
    logit_mask = methods.get("logit_mask")
    logit_mask.unlearn(masked, spec, forget.images, forget.labels, logit_mask.Config())
    hidden, gone = (
        deep_scores(module, spec, digits_data, FORGET, seed=0, original_accuracy=old.forget_test)
        for module in (masked, retrained)
    )
    assert json.loads(json.dumps(hidden)) == hidden
    assert first["forget_train"] == old.ua > 70
    assert first["attacks"]["confidence_svc"] == old.mia
    assert first["relearn_steps"] == 0
    for found in (hidden, gone):  # by accuracies and attacks they are alike
        assert found["forget_train"] == found["forget_test"] == 0
        assert found["attacks"]["confidence_svc"] > 90
        assert found["energy_auroc"] > first["energy_auroc"] + 20
        assert 40 < found["attacks"]["loss_auc"] < 60
        assert np.array(found["confusion"])[FORGET, FORGET] == 0
        assert sum(map(sum, found["confusion"])) == len(digits_data.test)
    assert hidden["probe"] == first["probe"] > 80  # the features are the original's
    assert hidden["relearn_steps"] == 0
    assert hidden["relearn_retain"] == pytest.approx(old.ta)
    assert gone["relearn_steps"] is None or gone["relearn_steps"] > 10
    assert gone["relearn_retain"] < 60  # it can but call everything by the one class it is shown
    assert masked(torch.zeros(1, 1, 8, 8)).argmax() != FORGET  # the module itself keeps its hook


def test_more_outputs_than_classes(original: nn.Module, spec: ModelSpec, digits_data: Dataset) -> None:
    """A shadow class that takes every image of the forgotten class: never right, a column of its own."""
    shadowed = copy.deepcopy(original)

    def shadow(module: nn.Module, inputs: Any, out: torch.Tensor) -> torch.Tensor:
        return torch.cat([out, out[:, FORGET, None] + 1], dim=1)

    shadowed.register_forward_hook(shadow)
    before = np.array(extended(original, spec, digits_data, FORGET, seed=0)[1]["confusion"])
    scores, found = extended(shadowed, spec, digits_data, FORGET, seed=0, original_accuracy=90.0)
    after = np.array(found["confusion"])
    assert after.shape == (10, 11)
    assert scores.ua == scores.forget_test == 0
    assert after[FORGET, FORGET] == 0
    assert after[FORGET, 10] >= before[FORGET, FORGET]
    assert found["relearn_steps"] == 0


def test_confusion_by_hand() -> None:
    test = Split(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 0, 1, 1]))
    dataset = Dataset(("a", "b"), test, test.take(0), test, "by hand")
    logits = np.array([[9, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 9]], np.float32)
    assert confusion(metrics.Outputs(logits, logits), dataset) == [[1, 1, 0], [0, 1, 1]]


def test_features_are_what_the_last_layer_sees(
    original: nn.Module, spec: ModelSpec, digits_data: Dataset
) -> None:
    images = digits_data.train.images[:600]
    seen = features(original, spec, images)
    assert seen.shape == (600, 64)
    assert final_linear(original, spec) is original.fc
    logits = seen @ original.fc.weight.detach().numpy().T + original.fc.bias.detach().numpy()
    assert np.allclose(logits, predictor(original, spec)(images), atol=1e-4)
    assert features(original, spec, images[:0]).shape == (0, 64)
    assert not original.fc._forward_pre_hooks


def test_a_model_without_a_last_linear_layer() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    spec = ModelSpec("conv", ("a", "b"), (1, 2, 2), (0.0,), (1.0,))
    with pytest.raises(ClueError, match="conv has no linear layer"):
        final_linear(module, spec)


def test_modes_are_as_they_were() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    module.train()
    module[1].eval()
    with evaluating(module):
        assert not module[0].training
    assert [layer.training for layer in module.modules()] == [True, True, False]


def test_the_class_and_the_shape_are_checked(
    original: nn.Module, spec: ModelSpec, digits_data: Dataset
) -> None:
    with pytest.raises(ClueError, match="no class 10"):
        deep_scores(original, spec, digits_data, 10, seed=0, original_accuracy=90.0)
    narrow = nn.Sequential(original, nn.Linear(10, 4))
    with pytest.raises(ClueError, match=r"gave logits \[512, 4\]"):
        deep_scores(narrow, spec, digits_data, 0, seed=0, original_accuracy=90.0)
