from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SPEC, BatchNormNet, TinyTransformer, made
from torch import Tensor, nn

from clue_mobile import programs
from clue_mobile.bundle import golden
from clue_mobile.bundle.golden import Golden
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.methods.clue import Config
from clue_mobile.plan import Port, Program, Random, Recipe, Value
from pi_runtime import draw

BATCH = 4


def build(module: nn.Module, **hyperparameters: Any) -> tuple[FlatModel, Recipe]:
    model = FlatModel(module, SPEC)
    config = Config(**{"saliency_batch": 8, "tau": 1e-3, **hyperparameters})
    return model, programs.build(model, "clue", config, BATCH)


def program_of(recipe: Recipe, name: str) -> Program:
    return next(program for program in recipe.programs if program.name == name)


def made_inputs(found: Golden, program: Program) -> list[Tensor]:
    """The program's inputs as a device makes them, from the manifest and the golden file alone."""
    inputs = []
    for number, port in enumerate(program.inputs):
        parts = [
            found.tensors[f"input.{port.name}"].reshape(-1)
            if how["distribution"] == "stored"
            else draw.golden(how, found.seed, number, index)
            for index, how in enumerate(found.inputs[port.name])
        ]
        inputs.append(torch.from_numpy(np.concatenate(parts).reshape(port.shape)))
    return inputs


def errors(found: Golden, program: Program) -> dict[str, float]:
    """Each output's error in the contract's sense, in units of its tolerance."""
    result = {}
    for port, tensor in zip(program.outputs, program.fn(*made_inputs(found, program)), strict=True):
        stored = found.tensors[port.name]
        taken = tensor.detach().reshape(-1).numpy()[:: int(found.outputs[port.name]["stride"])]
        assert taken.shape == stored.shape
        scale = float(np.abs(stored).max())
        difference = float(np.abs(taken - stored).max())
        relative = difference / scale if scale else math.inf * difference if difference else 0.0
        result[port.name] = relative / found.outputs[port.name]["tolerance"]
    return result


@pytest.mark.parametrize("kind", [BatchNormNet, TinyTransformer])
def test_a_device_makes_the_same_inputs_and_outputs(kind: type[nn.Module]) -> None:
    model, recipe = build(made(kind))
    for program in recipe.programs:
        found = golden.make(model, recipe, program)
        assert found.inputs.keys() == {port.name for port in program.inputs}
        assert found.outputs.keys() == {port.name for port in program.outputs}
        assert max(errors(found, program).values()) == 0, program.name
        assert all(0 < out["tolerance"] < 1e-2 for out in found.outputs.values()), program.name


Change = Callable[[], dict[str, Any]]


@pytest.mark.parametrize(("name", "change", "wrong"), [
    ("step", {"kl": "teacher_student"}, {"kl", "params_next", "momentum_next"}),
    ("step", {"temperature": 1.0}, {"energy", "momentum_next"}),
    ("step", {"energy_weight": 1.1}, {"momentum_next"}),
    ("step", {"momentum": 0.89}, {"momentum_next"}),
    ("step", {"batch_norm": "frozen"}, {"energy", "momentum_next"}),
    ("mask", {"saliency_batch": 16}, {"mask_next", "density"}),
])  # fmt: skip
def test_another_method_does_not_pass(name: str, change: dict[str, Any], wrong: set[str]) -> None:
    module = made(BatchNormNet)
    # kept, so that all have the same outputs
    model, recipe = build(module, batch_norm="batch_keep_running")
    program = program_of(recipe, name)
    found = golden.make(model, recipe, program)
    other = program_of(build(module, **{"batch_norm": "batch_keep_running", **change})[1], name)
    errors_of = errors(found, dataclasses.replace(program, fn=other.fn))
    assert {output for output, error in errors_of.items() if error > 1} >= wrong


def test_an_error_of_a_few_rounding_steps_passes_and_a_larger_one_does_not() -> None:
    model, recipe = build(made(BatchNormNet))
    program = program_of(recipe, "step")
    found = golden.make(model, recipe, program)

    def scaled(factor: float) -> Program:
        return dataclasses.replace(program, fn=lambda *inputs: tuple(t * factor for t in program.fn(*inputs)))

    assert max(errors(found, scaled(1 + 1e-6)).values()) < 1
    assert min(errors(found, scaled(1.02)).values()) > 1


def test_the_vectors_do_not_depend_on_chance() -> None:
    def all_of() -> list[Golden]:
        model, recipe = build(made(BatchNormNet))
        return [golden.make(model, recipe, program) for program in recipe.programs]

    torch.manual_seed(1)
    one = all_of()
    torch.manual_seed(2)
    other = all_of()
    for a, b in zip(one, other, strict=True):
        assert (a.seed, a.inputs, a.outputs) == (b.seed, b.inputs, b.outputs)
        assert a.tensors.keys() == b.tensors.keys()
        assert all(np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_weights_are_drawn_like_the_trained_ones_and_not_stored() -> None:
    module = made(BatchNormNet)
    model, recipe = build(module)
    found = golden.make(model, recipe, program_of(recipe, "predict"))
    draws = found.inputs["params"]
    parameters = list(module.named_parameters())
    assert [how["length"] for how in draws] == [p.numel() for _, p in parameters]
    for how, (_, parameter) in zip(draws, parameters, strict=True):
        assert how["distribution"] == "normal"
        assert how["a"] == pytest.approx(parameter.mean().item(), abs=1e-6)
        assert how["b"] == pytest.approx(parameter.std(correction=0).item(), rel=1e-5)
    assert set(found.tensors) == {"input.buffers", "logits"}
    assert not np.array_equal(found.tensors["input.buffers"], model.pack()["buffers"].numpy())


def test_large_outputs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_STORED", 10)
    model, recipe = build(made(BatchNormNet))
    program = program_of(recipe, "saliency")
    found = golden.make(model, recipe, program)
    size = model.sizes["params"]
    assert found.outputs["grad_sum_next"]["stride"] == -(-size // 10)
    assert 5 < len(found.tensors["grad_sum_next"]) <= 10
    assert max(errors(found, program).values()) == 0


def test_a_jump_in_what_is_not_stored_leaves_the_tolerance_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of millions of weights always has some within rounding of tau; that must not pass any mask."""
    model, recipe = build(made(BatchNormNet))
    program = program_of(recipe, "mask")
    turns = itertools.cycle([0.0, 1.0])

    def unsteady(*inputs: Tensor) -> tuple[Tensor, ...]:
        mask, density = program.fn(*inputs)
        mask[1] = next(turns)  # as if this weight were at tau
        return mask, density

    changed = dataclasses.replace(program, fn=unsteady)
    assert golden.make(model, recipe, changed).outputs["mask_next"]["tolerance"] > 1
    monkeypatch.setattr(golden, "MAX_STORED", model.sizes["params"] // 2)
    output = golden.make(model, recipe, changed).outputs["mask_next"]
    assert output["stride"] > 1
    assert output["tolerance"] == golden.TOLERANCE


def test_the_mask_has_weights_on_both_sides_of_tau() -> None:
    model, recipe = build(made(BatchNormNet))
    program = program_of(recipe, "mask")
    found = golden.make(model, recipe, program)
    old = made_inputs(found, program)[[port.name for port in program.inputs].index("mask")]
    added = found.tensors["mask_next"][old.numpy() == 0]
    assert set(old.unique().tolist()) == {0, 1}
    assert 0.2 < added.mean() < 0.98


def test_a_draw_for_each_role() -> None:
    model = FlatModel(made(TinyTransformer), SPEC)
    ports = {
        "x": Port("x", "batch", (2, 1, 4, 4), "x"),
        "onehot": Port("onehot", "batch", (2, 3), "onehot"),
        "lr": Port("lr", "scalar", (), "lr"),
        "noise": Port("noise", "random", (2, 5), "noise"),
        "sigma": Port("sigma", "random", (2,), "sigma"),
        "classes": Port("classes", "random", (2, 4), "classes"),
        "kept": Port("kept", "cache", (2, 3), "kept"),
        "mask": Port("mask", "carry", (6,), "mask"),
        "moment": Port("moment", "carry", (6,), "moment"),
        "own": Port("own", "carry", (6,), "moment", golden=("uniform", 2, 3)),
    }
    total = Port("total", "metric", ())
    inputs = (*model.state_ports(), *ports.values())
    program = Program("p", 2, inputs, (total,), lambda *ts: (sum((t.sum() for t in ts), torch.zeros(())),))
    zeros = {"zeros": True}
    recipe = Recipe(
        {
            **model.values(),
            "kept": Value("cache", (3,), zeros),
            "mask": Value("carry", (6,), zeros, storage="bits"),
            "moment": Value("carry", (6,), zeros),
        },
        {
            "noise": Random(16, "normal", (5,)),
            "sigma": Random(17, "uniform", (), low=0.5, high=1.0),
            "classes": Random(18, "onehot", (4,), classes=4),
        },
        [program],
        {"lr": 0.25},
        [],
    )
    found = golden.make(model, recipe, program)
    drawn = dict(zip([port.name for port in inputs], made_inputs(found, program), strict=True))
    kinds = {name: {how["distribution"] for how in found.inputs[name]} for name in ports}
    assert kinds == {
        "x": {"uniform"}, "onehot": {"cycle"}, "lr": {"constant"}, "noise": {"normal"}, "sigma": {"uniform"},
        "classes": {"cycle"}, "kept": {"normal"}, "mask": {"bernoulli"}, "moment": {"normal"},
        "own": {"uniform"},
    }  # fmt: skip
    assert drawn["onehot"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert drawn["classes"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert drawn["lr"].item() == 0.25
    assert set(drawn["mask"].tolist()) <= {0, 1}
    for name, low, high in (("x", 0, 1), ("sigma", 0.5, 1), ("own", 2, 3)):
        assert low <= drawn[name].min() <= drawn[name].max() <= high
    assert max(errors(found, program).values()) == 0


def test_what_overflows_is_refused() -> None:
    model, recipe = build(made(BatchNormNet), temperature=1e-3)
    with pytest.raises(ClueError, match="program 'step' gives params_next values that are not finite"):
        golden.make(model, recipe, program_of(recipe, "step"))
