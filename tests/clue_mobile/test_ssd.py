"""Selective Synaptic Dampening: importances and the dampening by hand, and what the bundle ships."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_linear as tiny
import torch

from clue_mobile import methods
from clue_mobile.errors import ClueError
from clue_mobile.methods import Samples, ssd
from pi_runtime import rng

TRAIN = Samples(tiny.images((153, 51), (20, 240), (90, 90), (255, 0), (10, 10)), np.array([2, 0, 0, 1, 2]))


def by_hand(samples: Samples, batch: int, seed: int) -> np.ndarray:
    """The mean over batches of the squared gradient of a batch's mean cross-entropy, [3, 2]."""
    w, n, squares = np.array(tiny.WEIGHT), len(samples.labels), []
    order = rng.permutation(seed, 0, n)
    for start in range(0, n, batch):
        part = order[np.arange(start, start + batch) % n]
        x, y = samples.images[part].reshape(-1, 2) / 255, np.eye(3)[samples.labels[part]]
        squares.append(((tiny.softmax(x @ w.T) - y).T @ x / batch) ** 2)
    return np.mean(squares, 0)


def test_chosen_weights_shrink_by_the_ratio_of_the_importances() -> None:
    params = torch.full((6,), 2.0)
    forget = torch.tensor([20.0, 30.0, 5.0, 0.0, 1.0, 20.0])
    full = torch.tensor([1.0, 2.0, 1.0, 0.0, 0.0, 2.0])
    ten, one = torch.tensor(10.0), torch.tensor(1.0)
    found, share = ssd.dampened(params, forget, full, ten, one)
    # only above ten times, so not at ten times; nothing of a weight that no other data needs
    assert found.tolist() == pytest.approx([2 / 20, 2 * 2 / 30, 2, 2, 0, 2])
    assert share.item() == pytest.approx(3 / 6)
    found, _ = ssd.dampened(params, forget, full, ten, torch.tensor(18.0))
    assert found.tolist() == pytest.approx([2 * 18 / 20, 2, 2, 2, 0, 2])  # never more than before


def test_importances_are_of_batches_and_of_any_order_of_the_set() -> None:
    model = tiny.flat()
    ordered = np.argsort(TRAIN.labels, kind="stable")
    wanted = by_hand(Samples(TRAIN.images[ordered], TRAIN.labels[ordered]), 2, 0)
    found = ssd.importances(model, model.pack(), TRAIN, 2)
    np.testing.assert_allclose(found.view(3, 2), wanted, rtol=1e-5)
    moved = [3, 0, 1, 4, 2]  # the classes' own orders are the same
    again = ssd.importances(model, model.pack(), Samples(TRAIN.images[moved], TRAIN.labels[moved]), 2)
    assert torch.equal(found, again)
    assert not torch.allclose(found, ssd.importances(model, model.pack(), TRAIN, 5))  # another batch


def test_the_eager_run_by_hand() -> None:
    forget = TRAIN.labels == 2
    mine, others = (Samples(TRAIN.images[which], TRAIN.labels[which]) for which in (forget, ~forget))
    module = tiny.linear()
    config = ssd.Config(alpha=1.2, dampening=0.5)
    (row,) = ssd.unlearn(module, tiny.SPEC, mine.images, mine.labels, config, seed=4, batch=2, retain=others)
    ordered = np.argsort(TRAIN.labels, kind="stable")
    full = by_hand(Samples(TRAIN.images[ordered], TRAIN.labels[ordered]), 2, 0)
    part = by_hand(mine, 2, 4)
    chosen = part > 1.2 * full
    w = np.array(tiny.WEIGHT)
    wanted = np.where(chosen, w * np.minimum(0.5 * full / part, 1), w)
    np.testing.assert_allclose(module[1].weight.detach(), wanted, rtol=1e-4, atol=1e-7)
    assert row["density"] == pytest.approx(chosen.mean())
    assert 0 < chosen.sum() < chosen.size


def test_a_recipe_ships_the_importances() -> None:
    model = tiny.flat()
    recipe = methods.build("ssd", model, ssd.Config(), 2, TRAIN)
    assert recipe.values["importances"].init == {"file": ssd.FILE, "key": ssd.KEY}
    shipped = recipe.tensors[ssd.FILE][ssd.KEY]
    np.testing.assert_array_equal(shipped, ssd.importances(model, model.pack(), TRAIN, 2))
    assert shipped.dtype == np.float32


def test_it_needs_the_training_set() -> None:
    with pytest.raises(ClueError, match=r"needs the whole training set.*--data DATA"):
        methods.build("ssd", tiny.flat(), ssd.Config(), 2)
    with pytest.raises(ClueError, match="no retain images were given"):
        ssd.unlearn(tiny.linear(), tiny.SPEC, TRAIN.images, TRAIN.labels, ssd.Config())
