from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from server_case import LINEAR, digits_accuracy, linear, pictures, same, softmax, state

from clue_mobile import methods, models
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods import Samples, iu
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.gradients import fisher_product, single_gradients
from clue_mobile.methods.iu import Config
from pi_runtime import rng

WEIGHT = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.0]])


def gradients(samples: Samples) -> np.ndarray:
    """(p - [k = y]) x of each image, [N, 6]."""
    x = samples.images[:, 0, :, 0] / np.float32(255).astype(np.float64)
    p = softmax(x @ WEIGHT.T)
    return ((p - np.eye(3)[samples.labels])[..., None] * x[:, None]).reshape(len(x), 6)


def recursion(vector: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    k, o = vector.copy(), rows[0].copy()
    for g in rows[1:]:
        product = o @ g
        k = k - (k @ g) / (n + product) * o
        o = o - product / (n + product) * o
    return k


def test_the_codes_recursion_by_hand() -> None:
    rows = [torch.tensor(row, dtype=torch.float64) for row in ([1.0, 2.0], [3.0, 0.0], [0.0, -1.0])]
    vector = torch.tensor([1.0, 1.0], dtype=torch.float64)
    assert torch.equal(iu.recursion(vector, rows[:1], 4), vector)  # the first only starts o
    # o = (1, 2), o.g = 3: k = (1, 1) - 3/7 (1, 2), o = (1 - 3/7) (1, 2)
    np.testing.assert_allclose(iu.recursion(vector, rows[:2], 4), [4 / 7, 1 / 7], rtol=1e-14)
    # o = (4/7, 8/7), o.g = -8/7: k = (4/7, 1/7) + (1/7) / (20/7) (4/7, 8/7)
    expected = [4 / 7 + 4 / 140, 1 / 7 + 8 / 140]
    found = iu.recursion(vector, rows, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    change = found - vector  # along the first gradient, whatever comes after it
    assert change[1] / change[0] == pytest.approx(2)


def test_the_papers_solve_is_the_inverse() -> None:
    samples = pictures(12)
    model = FlatModel(linear(WEIGHT), LINEAR)
    weights, data = model.pack(), Batches(*samples, 3, 0, "none")
    positions = np.array([7, 1, 2, 11, 5])
    rows = torch.stack(list(single_gradients(model, weights, data, 0, positions)))
    np.testing.assert_allclose(rows, gradients(samples)[positions], rtol=1e-6, atol=1e-9)
    vector = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, -1.0], dtype=torch.float64)

    def product(v: torch.Tensor) -> torch.Tensor:
        return fisher_product(model, weights, data, 0, positions, 2, v)

    fisher = rows.T @ rows / 5
    np.testing.assert_allclose(product(vector), fisher @ vector, rtol=1e-12, atol=1e-14)
    found, residual = iu.inverse(vector, product, tolerance=1e-12)
    wanted = torch.linalg.solve(torch.eye(6, dtype=torch.float64) + fisher, vector)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert residual <= 1e-12
    assert (wanted - vector).abs().max() > 0.01  # the Fisher information does matter here


def test_the_solve_of_nothing_is_nothing() -> None:
    zero = torch.zeros(3)
    found, residual = iu.inverse(zero, lambda v: v)
    assert torch.equal(found, zero)
    assert residual == 0


def test_the_gradient_of_the_loss_without_the_forget_set() -> None:
    forget, retain = torch.tensor([4.0, 0.0]), torch.tensor([-1.0, 2.0])
    # 2 of 10: mean over all is 0.2 f + 0.8 r; minus the mean over the retain set that is 0.2 (f - r)
    assert iu.influence(forget, retain, 2, 8).tolist() == pytest.approx([1.0, -0.4])


@pytest.mark.parametrize(("solve", "memory"), [("code", 2.0), ("paper", 2.0), ("paper", 0.0)])
def test_the_whole_step_by_hand(solve: Literal["code", "paper"], memory: float) -> None:
    forget, rest = pictures(4, seed=1), pictures(9, seed=2)
    module = linear(WEIGHT)
    config = Config(alpha=0.7, samples=5, augment="none", solve=solve, memory_gib=memory)
    (row,) = iu.unlearn(module, LINEAR, *forget, config, seed=3, batch=2, retain=rest)
    of_forget, of_rest = gradients(forget), gradients(rest)
    vector = 4 / 13 * (of_forget.mean(0) - of_rest.mean(0))
    order = rng.permutation(3, iu.SINGLES, 9)
    if solve == "code":
        step = recursion(vector, of_rest[order[:7]], 5)  # two more than it divides by
    else:
        rows = of_rest[order[:5]]
        step = np.linalg.solve(np.eye(6) + rows.T @ rows / 5, vector)
    np.testing.assert_allclose(
        module[1].weight.detach(), WEIGHT + 0.7 * step.reshape(3, 2), rtol=1e-5, atol=1e-7
    )
    assert row["difference"] == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    assert row["change"] == pytest.approx(0.7 * np.linalg.norm(step), rel=1e-5)


def digits(weights: Path, data: Dataset, seed: int = 0, **given: Any) -> tuple[float, float, Any]:
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, weights)
    forget, rest = data.train.of_class(3), data.train.without_class(3)
    before = torch.get_rng_state()
    iu.unlearn(
        module,
        spec,
        forget.images,
        forget.labels,
        Config(**{"samples": 50, "augment": "none", **given}),
        seed=seed,
        retain=Samples(rest.images, rest.labels),
    )
    assert torch.equal(before, torch.get_rng_state())
    return digits_accuracy(module, forget), digits_accuracy(module, rest), state(module)


@pytest.mark.parametrize(("solve", "alpha", "samples"), [("code", 0.4, 50), ("paper", 2.0, 200)])
def test_digits(digits_weights: Path, digits_data: Dataset, solve: str, alpha: float, samples: int) -> None:
    forget, rest, _ = digits(digits_weights, digits_data, alpha=alpha, samples=samples, solve=solve)
    assert forget < 60
    assert rest > 80


def test_a_seed_decides_which_images_are_read(digits_weights: Path, digits_data: Dataset) -> None:
    one, again, other = (digits(digits_weights, digits_data, seed=seed)[2] for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)


def test_watch_and_what_it_needs() -> None:
    samples, seen = pictures(6), []
    module = linear(WEIGHT)
    with pytest.raises(ClueError, match="iu needs all retained training images"):
        iu.unlearn(module, LINEAR, *samples, Config())
    iu.unlearn(
        module,
        LINEAR,
        *samples,
        Config(),
        retain=pictures(3, seed=1),
        watch=lambda model, values, row: seen.append(model.state_dict(values)),
    )
    assert torch.equal(seen[0]["1.weight"], module[1].weight)
    with pytest.raises(ClueError, match="cannot run on a device, since it needs all retained"):
        methods.build("iu", None, None, 32)
    with pytest.raises(ClueError, match="samples must be a whole number"):
        methods.configure("iu", {"samples": 0.5})
