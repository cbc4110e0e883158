"""A forget set is any images with labels: of one class, of several, or parts of classes. For each method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from server_case import RECORDING, numbered, recorder, same, state

from clue_mobile import methods
from clue_mobile.methods import Samples

SETTINGS = {
    "retrain": {"epochs": 2},
    "lu": {"copies": 10},
    "ssd": {
        "alpha": 0.1,
        "dampening": 0.1,
    },  # the forget set is too large a share of these images for alpha 10
}
CHANGE_NO_WEIGHTS = {"original", "logit_mask"}
FORGET_SETS = {
    "a class": np.arange(30) % 3 == 1,
    "two classes": np.arange(30) % 3 != 1,
    "parts of two classes": (np.arange(30) < 9) & (np.arange(30) % 3 != 2),
    "one image": np.arange(30) == 4,
}


@pytest.mark.parametrize("which", FORGET_SETS)
@pytest.mark.parametrize("name", methods.METHODS)
def test_the_method_takes_the_forget_set(name: str, which: str) -> None:
    images, labels = numbered(30)
    gone = FORGET_SETS[which]
    method, module = methods.get(name), recorder()
    given = (images[gone].copy(), labels[gone].copy())
    before, generators = state(module), (torch.get_rng_state(), np.random.get_state()[1].copy())
    config = methods.configure(name, SETTINGS.get(name, {}))
    log = method.unlearn(
        module, RECORDING, *given, config, seed=3, batch=4, retain=Samples(images[~gone], labels[~gone])
    )
    after = state(module)
    assert same(before, after) == (name in CHANGE_NO_WEIGHTS)
    assert bool(log) == (name not in CHANGE_NO_WEIGHTS)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert np.array_equal(given[0], images[gone])
    assert np.array_equal(given[1], labels[gone])
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
