"""Micro-batches give the step of the large batch; what cannot be cut is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory_case import SPEC, Net

from clue_mobile import programs
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.methods import clue, ga
from clue_mobile.plan import Program, Recipe

BATCH, MICRO = 8, 2


@pytest.fixture(scope="module")
def model() -> FlatModel:
    torch.manual_seed(0)
    return FlatModel(Net().double(), SPEC)


def built(model: FlatModel, micro: int | None, batch: int = BATCH, **given: Any) -> Recipe:
    config = clue.Config(**{"batch_norm": "frozen", "saliency_batch": 16, **given})
    return programs.build(model, "clue", config, batch, micro=micro)


def program(recipe: Recipe, name: str) -> Program:
    return next(p for p in recipe.programs if p.name == name)


@pytest.mark.parametrize("micro", [1, MICRO, 4])
def test_the_update_is_that_of_the_large_batch(model: FlatModel, micro: int) -> None:
    whole, cut = built(model, None), built(model, micro)
    state = model.pack()
    size = model.sizes["params"]
    momentum, mask = torch.rand(size, dtype=torch.float64), (torch.rand(size) > 0.3).double()
    x, teacher = torch.rand(BATCH, 3, 16, 16, dtype=torch.float64), torch.randn(BATCH, 5).double()
    lr = torch.tensor(0.01, dtype=torch.float64)
    params, velocity, *metrics = program(whole, "step").fn(*state.values(), momentum, mask, x, teacher, lr)
    total, means = torch.zeros(size, dtype=torch.float64), []
    for part in range(0, BATCH, micro):
        given = (total, x[part : part + micro], teacher[part : part + micro])
        total, *found = program(cut, "gradient").fn(*state.values(), *given)
        means.append(torch.stack(found))
    new, moved = program(cut, "update").fn(state["params"], momentum, mask, total, lr)
    torch.testing.assert_close(new, params, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(moved, velocity, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.stack(means).mean(0), torch.stack(metrics), rtol=1e-12, atol=1e-14)


def test_every_program_is_of_the_small_batch_and_the_plan_has_two_loops(model: FlatModel) -> None:
    recipe = built(model, MICRO)
    sizes = {p.name: p.batch for p in recipe.programs}
    assert sizes == {
        "predict": MICRO, "predict_1": 1, "saliency": MICRO, "mask": MICRO, "teacher": MICRO,
        "gradient": MICRO, "update": BATCH,
    }  # fmt: skip
    (epochs,) = recipe.plan
    (loop,) = epochs["body"][-1]["body"]
    reset, inner, update, stop = loop["body"]
    assert (loop["size"], reset) == (BATCH, {"reset": ["gradient"]})
    assert (inner["loop"], inner["size"], inner["body"]) == ("batches", MICRO, [{"run": "gradient"}])
    assert update == {"run": "update"}
    assert "stop" in stop


@pytest.mark.parametrize(
    ("micro", "given", "message"),
    [
        (3, {}, "must divide --batch 8: choose from 1, 2, 4"),
        (16, {}, "must divide --batch 8"),
        (2, {"batch_norm": "batch"}, "add --set batch_norm=frozen"),
    ],
)
def test_what_cannot_be_cut(model: FlatModel, micro: int, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        built(model, micro, **{"saliency_batch": 48, **given})


def test_a_method_without_plain_sgd_is_refused(model: FlatModel) -> None:
    from clue_mobile.methods import be

    with pytest.raises(ClueError, match="no plain SGD"):
        programs.build(model, "be", be.Config(batch_norm="frozen"), BATCH, micro=MICRO)


@pytest.mark.full
def test_a_device_ends_with_the_weights_of_the_large_batch(tmp_path: Path) -> None:
    """The unchanged device runtime, over whole requests of both bundles."""
    from safetensors.numpy import load_file

    from pi_runtime import Runtime

    torch.manual_seed(0)
    module = Net()
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    weights = []
    for name, micro in (("whole", None), ("cut", MICRO)):
        recipe = ExportRecipe(
            target="host", method="ga", batch=BATCH, micro_batch=micro, kept_at_least=0, least_images=0,
            hyperparameters={"batch_norm": "frozen", "epochs": 2, "lr": 1e-3},
        )  # fmt: skip
        bundle = export(module, SPEC, tmp_path / f"{name}.clue", recipe)
        with Runtime.open(bundle, tmp_path / name, threads=1) as runtime:
            runtime.add(images, "a")
            result = runtime.forget("a", seed=1, verify_at_most=100)
            assert result.status == "done", result.reason
            weights.append(load_file(runtime.serving.path))
    for key, expected in weights[0].items():
        np.testing.assert_allclose(weights[1][key], expected, rtol=1e-4, atol=1e-6)
    assert ga.RETAIN == ""
