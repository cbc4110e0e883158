from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SPEC, BatchNormNet, made

from clue_mobile.bundle import guard
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.methods import Samples
from pi_runtime import Bundle, verify

RECIPE = ExportRecipe(target="host", batch=4, hyperparameters={"saliency_batch": 8}, guard_per_class=2)


def unseen(n: int) -> Samples:
    channels, height, width = SPEC.input_shape
    images = np.random.default_rng(3).integers(0, 256, (n, height, width, channels), np.uint8)
    return Samples(images, np.arange(n) % SPEC.num_classes)


def test_the_first_images_of_each_class_are_chosen() -> None:
    labels = np.array([2, 0, 0, 1, 2, 0, 2, 2])
    assert guard.choose(labels, 4, 2).tolist() == [0, 1, 2, 3, 4]
    for wrong in (0, 1001):
        with pytest.raises(ClueError, match="--guard-per-class"):
            guard.choose(labels, 3, wrong)
    with pytest.raises(ClueError, match="has no images"):
        guard.choose(labels[:0], 3, 2)


def test_a_bundle_ships_guard_images_that_the_device_reads(tmp_path: Path) -> None:
    module, data = made(BatchNormNet), unseen(13)
    bundle = Bundle.open(export(module, SPEC, tmp_path / "g.clue", RECIPE, guard=data))
    found = verify.read_guard(bundle)
    assert found is not None
    chosen = guard.choose(data.labels, SPEC.num_classes, 2)
    assert len(chosen) == 2 * SPEC.num_classes
    assert np.array_equal(found.images, data.images[chosen])
    assert np.array_equal(found.labels, data.labels[chosen])
    assert bundle.guard in bundle.files
    assert bundle.guard_drop_at_most == 20
    module.eval()
    x = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (SPEC.mean, SPEC.std))
    with torch.no_grad():
        right = module((x - mean) / std).argmax(1).numpy() == data.labels
    assert bundle.sample_accuracy_at_most == round(100 * float(np.mean(right)), 2)


def test_a_bundle_without_has_only_the_signal(tmp_path: Path) -> None:
    for number, (method, given, kept) in enumerate(
        [("clue", None, 30.0), ("clue", 0, None), ("ga", None, None), ("ga", 45, 45.0)]
    ):
        given_for = RECIPE.hyperparameters if method == RECIPE.method else {}
        recipe = dataclasses.replace(RECIPE, method=method, hyperparameters=given_for, kept_at_least=given)
        path = export(made(BatchNormNet), SPEC, tmp_path / f"{number}.clue", recipe)
        bundle = Bundle.open(path)
        assert bundle.guard is None
        assert bundle.sample_accuracy_at_most is None
        assert (bundle.collapse and bundle.collapse.kept_at_least) == kept
        assert "guard" not in json.loads((path / "manifest.json").read_text())


def test_limits_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClueError, match="--kept-at-least"):
        dataclasses.replace(RECIPE, kept_at_least=101)
    recipe = dataclasses.replace(RECIPE, guard_drop=-1)
    with pytest.raises(ClueError, match="--guard-drop"):
        export(made(BatchNormNet), SPEC, tmp_path / "g.clue", recipe, guard=unseen(6))
    assert not list(tmp_path.iterdir())
