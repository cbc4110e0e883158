"""Relearning against a run by hand on a model of four weights, and what hooks on the outputs come to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clue_mobile.data import Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.relearn import IMAGES, LR, MOMENTUM, relearn, unmasked
from clue_mobile.spec import ModelSpec

SPEC = ModelSpec("by hand", ("a", "b"), (1, 1, 1), (0.0,), (1.0,))


def bright(count: int, label: int, value: int = 255) -> Split:
    return Split(np.full((count, 1, 1, 1), value, np.uint8), np.full(count, label, np.int64))


def both(forget: Split, others: Split) -> Split:
    return Split(
        np.concatenate([forget.images, others.images]), np.concatenate([forget.labels, others.labels])
    )


def linear(weights: list[float], biases: list[float]) -> nn.Sequential:
    module = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor(weights)[:, None])
        module[1].bias.copy_(torch.tensor(biases))
    return module.eval()


def steps_by_hand(weights: list[float], biases: list[float]) -> tuple[int, float]:
    """Gradient steps with momentum on the logits w + b of a white image until that of class 1 is the larger;
    and then the accuracy on black images of class 0, whose logits are b."""
    w, b, v = np.array(weights), np.array(biases), np.zeros(2)
    for step in range(1000):
        z = w + b
        if z[1] > z[0]:
            return step, 100.0 * float(b[0] > b[1])
        p = np.exp(z - z.max())
        v = MOMENTUM * v + p / p.sum() - [0, 1]  # the gradient of weight and bias alike, since x is 1
        w, b = w - LR * v, b - LR * v
    raise AssertionError("never")


@pytest.mark.parametrize("weights", [[0.4, 0.3], [0.5, 0.0]])
def test_steps_by_hand(weights: list[float]) -> None:
    expected, others = steps_by_hand(weights, [0.1, 0.0])
    module = linear(weights, [0.1, 0.0])
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    seen: list[tuple[int, int]] = []
    test = both(bright(3, 1), bright(3, 0, 0))
    forget = bright(60, 1)
    found = relearn(
        module, SPEC, forget, test, 1, original_accuracy=100.0, progress=lambda *n: seen.append(n)
    )
    assert found.steps == expected > 5
    assert found.forget_test == 100.0
    assert seen[-1] == (expected, 200)
    assert found.retain_test == others
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])  # it was a copy that learned
    assert relearn(module, SPEC, forget, test, 1, original_accuracy=100.0, limit=expected).steps == expected
    short = relearn(module, SPEC, forget, test, 1, original_accuracy=100.0, limit=expected - 1)
    assert short.steps is None
    assert short.forget_test == 0.0


def test_at_most_fifty_images_are_drawn_with_the_seed() -> None:
    module, shapes = linear([0.4, 0.3], [0, 0]), []
    module[0].register_forward_hook(lambda m, i, out: shapes.append(len(out)))
    test = both(bright(3, 1), bright(3, 0))
    relearn(module, SPEC, bright(IMAGES + 9, 1), test, 1, original_accuracy=100.0, limit=1)
    assert IMAGES in shapes
    assert IMAGES + 9 not in shapes


def test_a_goal_of_ninety_percent_of_the_old_accuracy() -> None:
    """Of ten test images of the class nine are known from the start: enough for 100 %, not for more."""
    module = linear([0.0, 1.0], [0.5, 0.0])
    test = both(both(bright(9, 1), bright(1, 1, 0)), bright(2, 0, 0))
    assert relearn(module, SPEC, bright(9, 1), test, 1, original_accuracy=100.0).steps == 0
    dim = both(both(bright(8, 1), bright(2, 1, 0)), bright(2, 0, 0))
    assert relearn(module, SPEC, bright(9, 1), dim, 1, original_accuracy=100.0).steps != 0
    assert relearn(module, SPEC, bright(9, 1), dim, 1, original_accuracy=88.0).steps == 0


def mask(module: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
    masked = out.clone()
    masked[:, 1] = out.amin(dim=1) - 1e4
    return masked


@pytest.mark.parametrize("place", ["module", "last layer"])
def test_a_masked_output_is_no_forgetting(place: str) -> None:
    module = linear([0.0, 1.0], [0.0, 0.0])
    (module if place == "module" else module[1]).register_forward_hook(mask)
    white = torch.ones(1, 1, 1, 1)
    assert module(white).argmax() == 0
    assert unmasked(module, SPEC)(white).argmax() == 1
    assert module(white).argmax() == 0
    test = both(bright(3, 1), bright(3, 0, 0))
    assert relearn(module, SPEC, bright(9, 1), test, 1, original_accuracy=100.0).steps == 0


def test_hooks_within_the_model_stay() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(1, 2))
    module[1].register_forward_hook(lambda m, inputs, out: 2 * out)
    white = torch.ones(1, 1, 1, 1)
    assert torch.equal(unmasked(module, SPEC)(white), module(white))


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 101.0, float("nan")])
def test_an_old_accuracy_that_is_none(accuracy: float) -> None:
    with pytest.raises(ClueError, match="in percent and above 0"):
        relearn(linear([0, 0], [0, 0]), SPEC, bright(2, 1), bright(2, 1), 1, original_accuracy=accuracy)


def test_no_images_of_the_class() -> None:
    with pytest.raises(ClueError, match="training and test images of the forgotten class"):
        relearn(linear([0, 0], [0, 0]), SPEC, bright(2, 1), bright(2, 0), 1, original_accuracy=50.0)
