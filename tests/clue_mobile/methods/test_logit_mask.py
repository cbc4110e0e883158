from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from server_case import LINEAR, digits_accuracy, linear, same, state
from torch import nn

from clue_mobile import methods, models, training
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.methods import logit_mask

IMAGE = np.array([[[[255], [51]]]], np.uint8)


def ask(module: nn.Module, *classes: int, **given: float) -> list[dict[str, float]]:
    labels = np.array(classes, np.int64)
    images = np.repeat(IMAGE, len(labels), 0)
    return logit_mask.unlearn(module, LINEAR, images, labels, logit_mask.Config(**given))


def test_the_outputs_are_deleted_and_no_others_change() -> None:
    module = linear(np.array([[5.0, 0.0], [1.0, 5.0], [-2.0, 0.0]]))
    before = state(module)
    x = torch.tensor([[[[1.0, 0.2]]], [[[0.0, 1.0]]]], dtype=torch.float64)
    assert module(x).tolist() == [[5.0, 2.0, -2.0], [0.0, 5.0, 0.0]]
    assert ask(module, 0, 0, margin=1000.0) == []
    logits = module(x)
    assert logits.tolist() == [[-1002.0, 2.0, -2.0], [-1000.0, 5.0, 0.0]]
    assert logits.argmax(1).tolist() == [1, 1]
    assert logits.float().softmax(1)[:, 0].tolist() == [0.0, 0.0]
    assert same(before, state(module))


def test_several_classes_and_a_second_request() -> None:
    x = torch.tensor([[[[1.0, 0.2]]]], dtype=torch.float64)
    together, later = (linear(np.array([[5.0, 0.0], [1.0, 5.0], [-2.0, 0.0]])) for _ in range(2))
    ask(together, 0, 1, 0)
    ask(later, 1)
    ask(later, 0)
    for module in (together, later, copy.deepcopy(later)):
        assert module(x).tolist() == [[-10002.0, -10002.0, -2.0]]
    with pytest.raises(ClueError, match="all 3 classes would be deleted: leave at least one"):
        ask(later, 2)
    assert module(x).argmax(1).item() == 2  # the refused request changed nothing


def test_extra_outputs_stay() -> None:
    hook = logit_mask.DeletedOutputs(10.0)
    hook.classes = {1}
    assert hook(nn.Identity(), (), torch.tensor([[3.0, 2.0, 1.0, 0.0]])).tolist() == [[3.0, -10.0, 1.0, 0.0]]


def test_digits_are_never_called_by_a_deleted_name(digits_weights: Path, digits_data: Dataset) -> None:
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, digits_weights)
    train = digits_data.train
    picked = train.select(np.isin(train.labels, (3, 8)))
    rest = train.select(~np.isin(train.labels, (3, 8)))
    before = digits_accuracy(module, rest)
    logit_mask.unlearn(module, spec, picked.images, picked.labels, logit_mask.Config())
    assert digits_accuracy(module, picked) == 0
    assert digits_accuracy(module, rest) >= before
    with torch.no_grad():
        logits = module(training.to_input(torch.from_numpy(train.images), spec))
    assert torch.isfinite(logits).all()
    assert not set(logits.argmax(1).tolist()) & {3, 8}


def test_the_original_is_left_alone(digits_weights: Path, digits_data: Dataset) -> None:
    spec = models.resolve_spec("digits_cnn")
    module, samples = models.load(spec, digits_weights), digits_data.train.of_class(3)
    before = state(module)
    original = methods.get("original")
    assert original.unlearn(module, spec, samples.images, samples.labels, original.Config()) == []
    assert same(before, state(module))


@pytest.mark.parametrize("name", ["original", "logit_mask"])
def test_these_change_no_weights_so_that_no_device_has_them(name: str) -> None:
    assert not methods.on_device(name)
    with pytest.raises(ClueError, match=f"{name} cannot run on a device, since it changes no weights"):
        methods.build(name, None, None, 32)


def test_the_margin_is_checked() -> None:
    with pytest.raises(ClueError, match="margin must be at least"):
        methods.configure("logit_mask", {"margin": 0})
