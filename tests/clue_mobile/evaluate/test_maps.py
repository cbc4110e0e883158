"""Which map a model gets, at which size, and that the model is as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clue_mobile import models
from clue_mobile.data import Split
from clue_mobile.evaluate.eager import predictor, to_input
from clue_mobile.evaluate.gradcam import grad_cam
from clue_mobile.evaluate.maps import explain
from clue_mobile.evaluate.rollout import attended, patch_map


@pytest.mark.parametrize(
    ("model", "kind", "layer"),
    [("resnet20", "Grad-CAM", "layer3"), ("vit_small_patch4", "attention rollout", "")],
)
def test_maps_at_the_size_of_the_images(model: str, kind: str, layer: str) -> None:
    spec = models.resolve_spec(model)
    module = models.load(spec, None)
    images = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    split = Split(images, np.array([0, 5, 9]))
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = explain(module, spec, split)
    assert (found.kind, found.layer) == (kind, layer)
    assert found.heat.shape == (3, 32, 32)
    assert found.heat.min() >= 0
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in module.parameters())
    assert np.allclose(found.logits, predictor(module, spec)(images), atol=1e-5)
    x = to_input(images, spec)
    seen = attended(module, x)
    small = patch_map(seen) if seen else grad_cam(module, spec, x, torch.tensor([0, 5, 9]))[0]
    # bilinear: beyond the centres of the outermost cells there is nothing to blend with
    assert np.allclose(found.heat[:, ::31, ::31], small[:, :: small.shape[1] - 1, :: small.shape[2] - 1])


def test_a_named_layer_is_grad_cam_in_any_model() -> None:
    spec = models.resolve_spec("vit_small_patch4")
    module = models.load(spec, None)
    split = Split(np.random.RandomState(0).randint(0, 256, (1, 32, 32, 3), dtype=np.uint8), np.array([2]))
    found = explain(module, spec, split, layer="patch")
    assert (found.kind, found.layer) == ("Grad-CAM", "patch")
    assert found.heat.max() > 0
