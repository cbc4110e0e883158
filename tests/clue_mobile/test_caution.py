"""What an export says against a method, from the model alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from clue_mobile import methods, models
from clue_mobile.flat import FlatModel
from clue_mobile.methods.caution import caution, noise_answers
from clue_mobile.methods.clue import Config

SPEC = models.resolve_spec("digits_cnn")
GREY = np.full((64, 8, 8, 1), 128, np.uint8)


class Linear(nn.Module):
    """A classifier of 8x8 images; where its weights are zero, `bias` is the answer to everything."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.linear.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10] of images [N, 1, 8, 8]."""
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits


def always(label: int) -> FlatModel:
    return FlatModel(Linear(torch.zeros(10, 64), torch.eye(10)[label]), SPEC)


def test_a_class_that_noise_gets_is_named() -> None:
    said = caution(always(7), Config())
    assert said is not None
    assert "answers '7' to 100 % of noisy grey images" in said
    assert "forget '7' can be expected to fail" in said


def test_answers_that_are_spread_say_nothing() -> None:
    torch.manual_seed(0)
    model = FlatModel(Linear(torch.randn(10, 64), torch.zeros(10)), SPEC)
    shares = noise_answers(model, Config(), GREY)
    assert shares.sum() == 1
    assert (shares > 0).sum() >= 3
    assert shares.max() <= 0.5
    assert caution(model, Config()) is None


def test_the_noise_is_the_teachers() -> None:
    """Without noise every image is grey, and the answer to grey is one class."""
    torch.manual_seed(0)
    model = FlatModel(Linear(torch.randn(10, 64), torch.zeros(10)), SPEC)
    assert noise_answers(model, Config(sigma_low=0.0, sigma_high=0.0), GREY).max() == 1


def test_only_clue_with_its_kl_term_depends_on_it() -> None:
    assert caution(always(7), Config(kl_weight=0.0)) is None
    for method in ("ga", "rl", "be", "bs", "lu", "ssd"):
        assert caution(always(7), methods.configure(method, {})) is None
