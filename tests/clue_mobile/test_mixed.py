"""Programs of a request in float16: near float32, on float32 state, only where a runtime takes them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from test_cuts import BATCH, Three, carried_out, exported, inputs_of
from tiny_models import SPEC, TinyTransformer, made

from clue_mobile import methods, mixed, programs
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Program
from pi_runtime import golden
from pi_runtime.onnx_engine import OnnxEngine


def pair(module: type[torch.nn.Module], name: str) -> tuple[FlatModel, Program, Program]:
    """A program in float32 and in float16."""
    model = FlatModel(made(module), SPEC)
    config = methods.configure("clue", {"batch_norm": "frozen", "saliency_batch": 8})
    found = [programs.build(model, "clue", config, BATCH, halved=names) for names in ((), (name,))]
    single, half = (next(p for p in recipe.programs if p.name == name) for recipe in found)
    return model, single, half


@pytest.mark.parametrize("module", [Three, TinyTransformer])
@pytest.mark.parametrize("name", ["step", "teacher"])
def test_it_is_near_float32_and_not_equal(module: type[torch.nn.Module], name: str) -> None:
    model, single, half = pair(module, name)
    assert (single.float16, half.float16) == (False, True)
    torch.manual_seed(0)
    given = {port.name: torch.rand(port.shape) for port in half.inputs} | model.pack()
    given |= {name: torch.zeros_like(given[name]) for name in ("momentum",) if name in given}
    inputs = [given[port.name] for port in half.inputs]
    for port, one, other in zip(half.outputs, half.fn(*inputs), single.fn(*inputs), strict=True):
        assert one.dtype == torch.float32
        scale = float(other.abs().max())
        assert float((one - other).abs().max()) <= 5e-3 * scale, port.name
        if port.name in ("momentum_next", "logits"):
            assert not torch.equal(one, other)


def test_small_gradients_survive() -> None:
    """A loss so small that its gradients would be zero in float16."""
    model = FlatModel(made(Three), SPEC)
    state, x = model.pack(), torch.rand(BATCH, 1, 4, 4)

    def gradient(scale: float) -> torch.Tensor:
        with model.in_float16(scale):
            leaves = model.leaves(state)
            return model.gradient(3e-8 * model.forward(leaves, state, x)[0].square().mean(), leaves)

    leaves = model.leaves(state)
    wanted = model.gradient(3e-8 * model.forward(leaves, state, x)[0].square().mean(), leaves)
    norm = wanted.norm()
    assert (gradient(mixed.LOSS_SCALE) - wanted).norm() < 0.02 * norm
    assert (gradient(1.0) - wanted).norm() > 0.2 * norm


def test_the_state_is_never_rounded() -> None:
    """Weights outside the mask come out bit by bit, and no update is lost below float16's resolution."""
    model, _, half = pair(Three, "step")
    inputs = dict(zip((p.name for p in half.inputs), inputs_of(half, model, 100), strict=True))
    inputs |= {"momentum": torch.zeros_like(inputs["momentum"]), "lr": torch.tensor(1e-4)}
    out = dict(zip((p.name for p in half.outputs), half.fn(*inputs.values()), strict=True))
    still = inputs["mask"] == 0
    assert torch.equal(out["params_next"][still], inputs["params"][still])
    moved = (out["params_next"] - inputs["params"]).abs()
    assert 0 < float(moved[~still].median()) < 2**-12 * float(inputs["params"].abs().max())


def test_a_bundle_with_it_runs_a_request(tmp_path: Path) -> None:
    hyper = {"hyper": {"batch_norm": "frozen", "tau": 0.1}}
    bundle = exported(tmp_path, "half", float16=("step", "teacher"), cut_points=1, **hyper)
    assert all(result.ok for result in golden.check(bundle, OnnxEngine(1)))
    for name in ("step", "step_from_1", "teacher"):
        graph = onnx.load(bundle.root / f"programs/onnx/{name}.onnx").graph
        assert {p.type.tensor_type.elem_type for p in (*graph.input, *graph.output)} == {TensorProto.FLOAT}
        casts = [node.attribute[0].i for node in graph.node if node.op_type == "Cast"]
        assert TensorProto.FLOAT16 in casts
    _, half = carried_out(bundle)
    _, single = carried_out(exported(tmp_path, "single", **hyper))
    error = abs(half["params"] - single["params"]).max() / abs(single["params"]).max()
    assert 0 < error < 1e-2


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    model = FlatModel(made(Three), SPEC)
    config = methods.configure("clue", {"batch_norm": "batch", "saliency_batch": 8})
    with pytest.raises(ClueError, match=r"--float16 step would round the running statistics"):
        programs.build(model, "clue", config, BATCH, halved=("step",))
    with pytest.raises(ClueError, match=r"unknown program for --float16 'mask'.*step, teacher"):
        programs.build(model, "clue", config, BATCH, halved=("mask",))
    with pytest.raises(ClueError, match=r"unknown program for --float16 'teacher'"):
        programs.build(model, "ga", methods.configure("ga", {}), BATCH, halved=("teacher",))
    recipe = ExportRecipe("pi5", float16=("teacher",), batch=BATCH, hyperparameters={"saliency_batch": 8})
    with pytest.raises(ClueError, match=r"litert would be left without this program: name runtimes"):
        export(made(Three), SPEC, tmp_path / "no.clue", recipe)
    assert not (tmp_path / "no.clue").exists()
