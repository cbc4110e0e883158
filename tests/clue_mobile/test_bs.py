"""Boundary Shrink on a model that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_linear as tiny
import torch

from clue_mobile.methods import bs

# For class a the cross-entropy's gradient to x = (u, v) is (p_a - p_c - 1, p_b - p_c): u falls, v rises while
# v > -(u + v); the logits are (u, v, -u - v).
X = torch.tensor([[0.55, 0.45], [0.9, 0.3], [0.05, 0.97]]).view(3, 1, 1, 2)
TRUE = torch.tensor([[1.0, 0.0, 0.0]] * 3)


def test_the_attack_moves_each_pixel_by_the_bound_and_stays_in_range() -> None:
    model = tiny.flat()
    found = bs.attacked(model, model.pack(), X, TRUE, 0.1).view(3, 2)
    assert found.flatten().tolist() == pytest.approx([0.45, 0.55, 0.8, 0.4, 0.0, 1.0])


@pytest.mark.parametrize(("labels", "expected"), [("any", [1, 0, 1]), ("other", [1, 1, 1])])
def test_the_label_is_the_class_across_the_boundary(labels: Any, expected: list[int]) -> None:
    """The second image stays class a under attack: the code then keeps its true label, the paper does not."""
    model = tiny.flat()
    found = bs.nearest(model, model.pack(), X, TRUE, bs.Config(labels=labels))
    assert found.tolist() == np.eye(3)[expected].tolist()


def test_the_labels_are_the_originals_in_every_epoch() -> None:
    """After the first step the model itself would answer otherwise; the targets must not follow it."""
    module, pixel = tiny.linear(), np.array([140, 115])
    x = pixel / 255
    config = bs.Config(epochs=5, lr=2.0, momentum=0.0, augment="none")
    bs.unlearn(module, tiny.SPEC, tiny.images((140, 115)), np.array([0]), config, batch=1)
    w = np.array(tiny.WEIGHT)
    for _ in range(config.epochs):
        w = w - config.lr * np.outer(tiny.softmax(w @ x) - [0, 1, 0], x)
    np.testing.assert_allclose(module[1].weight.detach(), w, rtol=1e-5)
    moved, state = tiny.flat(w.tolist()), tiny.flat(w.tolist()).pack()
    assert (w @ x).argmax() == 1
    inputs = torch.tensor(x, dtype=torch.float32).view(1, 1, 1, 2)
    assert bs.nearest(moved, state, inputs, TRUE[:1], config).argmax() == 1


def test_the_original_is_carried_along_only_where_images_are_augmented() -> None:
    plain, augmented = (
        bs.build(tiny.flat(), bs.Config(augment=augment), 2) for augment in ("none", "crop_flip")
    )
    assert set(augmented.values) - set(plain.values) == {"original_params"}
    assert augmented.values["original_params"].init == {"value": "params"}
    assert [node.get("phase", node.get("loop")) for node in plain.plan] == ["label", "epochs"]
    assert [node.get("loop") for node in augmented.plan] == ["epochs"]
