"""Cut points: variants of the step give what the step gives wherever the mask is empty below them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SPEC, TinyTransformer, made
from torch import Tensor, nn

from clue_mobile import cuts, methods, parity, programs
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Program
from pi_runtime import estimate, golden
from pi_runtime.bench import bench
from pi_runtime.bundle import Bundle
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.plan import Run

BATCH = 4


class Three(nn.Module):
    """Two blocks with batch norm, of which the second has an inner one, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(self.second(self.first(x)).flatten(1))


FIRST_CONV, FIRST_NORM, SECOND_CONV, SECOND_NORM, HEAD = 0, 40, 48, 192, 200
FORWARD = {FIRST_CONV: 2 * 36 * 16, SECOND_CONV: 2 * 144 * 4, HEAD: 2 * 16 * 3}  # FLOPs of one image


def recipe_of(batch_norm: str, count: int) -> tuple[FlatModel, dict[str, Program], Any]:
    model = FlatModel(made(Three), SPEC)
    config = methods.configure("clue", {"batch_norm": batch_norm, "saliency_batch": 8})
    recipe = programs.build(model, "clue", config, BATCH, cut_points=count)
    return model, {program.name: program for program in recipe.programs}, recipe


def inputs_of(program: Program, model: FlatModel, empty: int) -> list[Tensor]:
    """Random ones, the momentum nowhere zero; the mask is empty in front of `empty` and half full behind."""
    torch.manual_seed(3)
    given = {port.name: torch.rand(port.shape) + 0.1 for port in program.inputs} | model.pack()
    given["mask"] = (torch.rand(given["mask"].shape) < 0.5).float()
    given["mask"][:empty] = 0
    given["mask"][empty] = 1
    return [given[port.name] for port in program.inputs]


def test_boundaries_are_where_blocks_begin() -> None:
    total = sum(FORWARD.values())
    found = cuts.boundaries(FlatModel(made(Three), SPEC))
    expected = {FIRST_CONV: 0, FIRST_NORM: FORWARD[FIRST_CONV], SECOND_CONV: FORWARD[FIRST_CONV]}
    expected |= {SECOND_NORM: total - FORWARD[HEAD], HEAD: total - FORWARD[HEAD]}
    assert found == pytest.approx({offset: flops / total for offset, flops in expected.items()})


def test_a_parameter_of_the_model_itself_does_no_work() -> None:
    model = FlatModel(made(TinyTransformer), SPEC)
    begins = {entry.name: entry.offset for entry in model.entries}
    found = cuts.boundaries(model)
    assert begins["place"] == 0
    assert found[0] == found[begins["embed.weight"]] == 0
    flops = {"embed": 2 * 4 * 4 * 8, "qkv": 2 * 4 * 8 * 24, "project": 2 * 4 * 8 * 8, "head": 2 * 8 * 3}
    before_head = sum(flops.values()) - flops["head"]
    assert found[begins["head.weight"]] == pytest.approx(before_head / sum(flops.values()))


def test_cut_points_divide_the_forward_pass() -> None:
    model = FlatModel(made(Three), SPEC)
    assert cuts.choose(model, 0) == []
    assert cuts.choose(model, 1) == [FIRST_NORM]  # 47 % in front of it, as of the second convolution
    assert cuts.choose(model, 4) == [FIRST_NORM, SECOND_CONV, SECOND_NORM, HEAD]
    with pytest.raises(ClueError, match=r"--cut-points 5: tiny has 4 block boundaries .* give 0 to 4"):
        cuts.choose(model, 5)


def test_a_method_without_a_mask_is_refused() -> None:
    with pytest.raises(ClueError, match="no mask that could be empty"):
        programs.build(FlatModel(made(Three), SPEC), "ga", methods.configure("ga", {}), BATCH, cut_points=1)


@pytest.mark.parametrize("batch_norm", ["batch", "batch_keep_running", "frozen"])
def test_a_variant_is_the_step_where_the_mask_is_empty_below_it(batch_norm: str) -> None:
    """Bit by bit in eager: running statistics, metrics, and weights in front of the cut that still coast."""
    model, made_programs, _ = recipe_of(batch_norm, 4)
    for number, offset in enumerate((FIRST_NORM, SECOND_CONV, SECOND_NORM, HEAD), 1):
        variant = made_programs[f"step_from_{number}"]
        inputs = inputs_of(variant, model, offset)
        names = [port.name for port in variant.outputs]
        whole = dict(zip(names, made_programs["step"].fn(*inputs), strict=True))
        cut = dict(zip(names, variant.fn(*inputs), strict=True))
        for name in names:
            assert torch.equal(whole[name], cut[name]), (name, offset)
        given = dict(zip((port.name for port in variant.inputs), inputs, strict=True))
        coasting = given["params"] - given["lr"] * 0.9 * given["momentum"]
        torch.testing.assert_close(cut["params_next"][:offset], coasting[:offset])
        assert not torch.equal(cut["params_next"][:offset], given["params"][:offset])
        assert ("buffers_next" in names) == (batch_norm == "batch")


def test_below_its_cut_a_variant_is_not_the_step() -> None:
    """So the mask has to be asked."""
    model, made_programs, _ = recipe_of("frozen", 2)
    variant = made_programs["step_from_2"]
    inputs = inputs_of(variant, model, 0)
    assert not torch.equal(variant.fn(*inputs)[0], made_programs["step"].fn(*inputs)[0])


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_the_work_below_a_cut_is_gone(batch_norm: str) -> None:
    _, made_programs, _ = recipe_of(batch_norm, 4)
    flops = [programs.trace(made_programs[f"step_from_{i}"]).flops / BATCH for i in (1, 2, 3, 4)]
    whole = programs.trace(made_programs["step"]).flops / BATCH
    forward = sum(FORWARD.values())
    first, second, head = FORWARD.values()
    # a convolution's gradients may take a form of more FLOPs than the convolution, never of fewer
    assert whole - flops[0] >= first  # its weight's
    assert flops[0] - flops[1] >= second  # its input's
    assert flops[1] - flops[2] >= second  # its weight's
    assert flops[2] == forward + 2 * head
    assert flops[3] == forward + head


def exported(folder: Path, name: str, **given: Any) -> Bundle:
    recipe = ExportRecipe(
        "host",
        batch=BATCH,
        kept_at_least=0,
        hyperparameters={"saliency_batch": 8, "epochs": 4, "lr": 0.05, **given.pop("hyper", {})},
        **given,
    )
    return Bundle.open(export(made(Three), SPEC, folder / f"{name}.clue", recipe))


def samples() -> tuple[Any, Any]:
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), np.uint8)
    return images, np.full(8, 1, np.int64)


def carried_out(bundle: Bundle) -> tuple[list[str], dict[str, Any]]:
    """Which program each step was, and all values at the end."""
    replay = parity.Replay(bundle, OnnxEngine(1), *samples(), 0)
    ran = []
    for others, step in replay.steps():
        replay.carry_out(*others)
        ran.append(replay.chosen(step.node))
        replay.carry_out(step)
    return ran, replay.values.all()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """The same request with cut points and without."""
    folder = tmp_path_factory.mktemp("cuts")
    return exported(folder, "cut", cut_points=2), exported(folder, "whole")


def with_tau(bundle: Bundle, tau: float) -> Bundle:
    return dataclasses.replace(bundle, scalars={**bundle.scalars, "tau": tau})


def test_only_a_plan_with_variants_needs_version_2(bundles: tuple[Bundle, Bundle]) -> None:
    cut, whole = (json.loads((bundle.root / "manifest.json").read_bytes()) for bundle in bundles)
    assert (cut["schema_version"], whole["schema_version"]) == (2, 1)
    node = cut["plan"][0]["body"][-1]["body"][0]["body"][0]
    assert [each["run"] for each in node["instead"]] == ["step_from_2", "step_from_1"]
    assert all(result.ok for result in golden.check(bundles[0], OnnxEngine(1)))


def test_a_request_with_variants_ends_as_one_without(bundles: tuple[Bundle, Bundle]) -> None:
    """Thresholds between the least and the largest saliency: masks that begin everywhere."""
    seen: set[str] = set()
    for tau in np.geomspace(0.02, 0.6, 12):
        (ran, cut), (_, whole) = (carried_out(with_tau(bundle, float(tau))) for bundle in bundles)
        for name in whole:
            np.testing.assert_allclose(cut[name], whole[name], rtol=1e-6, atol=1e-7, err_msg=name)
        seen |= set(ran)
    assert seen == {"step", "step_from_1", "step_from_2"}


def test_weights_that_left_the_mask_coast_in_a_variant_too(bundles: tuple[Bundle, Bundle]) -> None:
    """As after an epoch whose mask reached below the cut: momentum is left there."""
    ended = []
    for bundle in bundles:
        replay = parity.Replay(bundle, OnnxEngine(1), *samples(), 0)
        _, step = replay.step(3)
        size = bundle.values["params"].shape[0]
        mask = (np.arange(size) >= HEAD).astype(np.float32)
        momentum = np.random.default_rng(1).normal(size=size).astype(np.float32)
        before = replay.values.current("params").copy()
        replay.set({"mask": mask, "momentum": momentum})
        assert replay.chosen(step.node) == ("step_from_2" if bundle is bundles[0] else "step")
        replay.carry_out(step)
        ended.append({name: array.copy() for name, array in replay.values.all().items()})
        moved = before[:SECOND_CONV] - 0.05 * 0.9 * momentum[:SECOND_CONV]
        np.testing.assert_allclose(ended[-1]["params"][:SECOND_CONV], moved, rtol=1e-5, atol=1e-6)
    for name, array in ended[1].items():
        np.testing.assert_allclose(ended[0][name], array, rtol=1e-6, atol=1e-7, err_msg=name)


def test_bench_times_the_variants_too(bundles: tuple[Bundle, Bundle]) -> None:
    timed = [timing.program for timing in bench(bundles[0], OnnxEngine(1), seconds=0.001)]
    expected = ["saliency", "mask", "teacher", "step", "step_from_2", "step_from_1", "predict"]
    assert timed == expected
    assert estimate.counts(bundles[0], 8, bundles[0].scalars).runs.keys() <= set(timed)


def test_a_variant_is_loaded_when_it_is_first_chosen(bundles: tuple[Bundle, Bundle]) -> None:
    replay = parity.Replay(with_tau(bundles[0], 1e9), OnnxEngine(1), *samples(), 0)
    assert "step_from_2" not in replay._sessions
    others, step = replay.step(1)
    replay.carry_out(*others)
    assert isinstance(step, Run)
    assert replay.chosen(step.node) == "step_from_2"  # of an empty mask the cheapest
    replay.carry_out(step)
    assert "step_from_2" in replay._sessions
    assert "step_from_1" not in replay._sessions
