"""Programs with the kernel library's operators: what is fused, and that they compute what eager does."""

from __future__ import annotations

import operator
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from kernel_case import library
from torch import Tensor, nn

from clue_mobile.engines.check import check
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import kernels
from clue_mobile.methods import clue
from clue_mobile.plan import Port, Program
from clue_mobile.programs import Traced, build, trace
from clue_mobile.spec import ModelSpec
from exporters import onnx_clue, onnx_kernels, onnx_memory
from exporters.onnx import convert_program
from pi_runtime.bundle import Bundle, Golden
from pi_runtime.bundle import Port as DevicePort
from pi_runtime.bundle import Program as DeviceProgram
from pi_runtime.onnx_engine import OnnxClueEngine

BATCH = 4
SPEC = ModelSpec("net", tuple("abcde"), (3, 9, 10), (0.5,) * 3, (0.25,) * 3)


class Net(nn.Module):
    """What the fusions look for: two residual blocks, one that halves the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(8, 8, 3, padding=1, bias=False),
                nn.Conv2d(8, 12, 3, 2, padding=1),
                nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False),
                nn.Conv2d(8, 12, 1, 2, bias=False),
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) for c in (8, 8, 12, 12, 12)])
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 5]."""
        first, second, third, fourth, fifth = self.norms
        x = F.relu(first(self.stem(x)))
        x = F.relu(second(self.convs[0](x)) + x)
        y = fourth(self.convs[2](F.relu6(third(self.convs[1](x)))))
        x = F.relu(y + fifth(self.convs[3](x)))
        return self.head(x.mean(dim=(2, 3)))


class Tokens(nn.Module):
    """A pooled convolution, and a transformer's half of a block: layer norm, wide linear layers, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.before, self.behind = nn.LayerNorm(16), nn.LayerNorm(16)
        self.wide, self.narrow = nn.Linear(16, 1024), nn.Linear(1024, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 5]."""
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1).flatten(2).transpose(1, 2)
        x = x + self.narrow(F.gelu(self.wide(self.before(x))))
        return self.head(self.behind(x).mean(dim=1))


NETS = {"residual": Net, "tokens": Tokens}


@cache
def programs(batch_norm: str, net: str = "residual") -> tuple[list[Traced], dict[str, Program]]:
    torch.manual_seed(0)
    spec = SPEC
    recipe = build(FlatModel(NETS[net](), spec), "clue", clue.Config(batch_norm=batch_norm), BATCH)  # type: ignore[arg-type]
    chosen = {p.name: p for p in recipe.programs if p.name in ("predict", "saliency", "step")}
    traced = [trace(p, overrides=onnx_clue.OVERRIDES, passes=onnx_clue.PASSES) for p in chosen.values()]
    for each in traced:
        kernels.fuse(each.graph)
    return traced, chosen


def inputs(program: Program, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.rand(p.shape, generator=generator) + 0.1 for p in program.inputs]
    return [
        (0.2 * (t - 0.6) if p.name == "params" else t).to(dtype)
        for p, t in zip(program.inputs, made, strict=True)
    ]


def count(traced: Traced) -> Counter[str]:
    nodes = [
        n for n in traced.graph.graph.nodes if n.op == "call_function" and n.target is not operator.getitem
    ]
    return Counter(str(n.target).removesuffix(".default") for n in nodes)


def test_a_step_is_fused() -> None:
    found = count(next(t for t in programs("batch")[0] if t.program.name == "step"))
    own = {name: number for name, number in found.items() if name.startswith("clue.")}
    assert own == {
        "clue.image": 2,
        "clue.conv_stats": 5,
        "clue.norm": 7,
        "clue.norm_grad": 5,
        "clue.conv_grad": 4,
        "clue.conv_weight_grad": 1,
        "clue.sgd": 1,
    }
    assert not {"aten.relu", "aten.convolution"} & found.keys()
    assert not {"aten.sign", "aten.clamp", "clue.clamp_grad"} & found.keys()  # ReLU6 too
    nodes = next(t for t in programs("batch")[0] if t.program.name == "step").graph.graph.nodes
    images = [n for n in nodes if n.target is torch.ops.aten.permute.default and n.meta["val"].dim() == 4]
    assert len(images) <= 2  # what comes in, and the pooling's gradient


def test_what_is_cheap_is_made_again_and_not_kept() -> None:
    traced = next(t for t in programs("batch", "tokens")[0] if t.program.name == "step")
    found = count(traced)
    # the norm's result for the pooling, the first layer norm's, GELU's, the image's, and the weights of the
    # wide linear layers; a bias is too small for it
    again = {"norm": 2, "layer_norm": 3, "gelu": 2, "image": 2, "part": 2}
    assert {name: found[f"clue.{name}"] for name in again} == again
    assert (found["clue.max_pool"], found["clue.max_pool_grad"]) == (1, 1)
    assert not found["aten.max_pool2d"]
    nodes = list(traced.graph.graph.nodes)
    turn = next(i for i, n in enumerate(nodes) if str(n.target).startswith("clue.layer_norm_grad"))
    for node in nodes[: turn - 1]:
        if str(node.target).startswith(("clue.norm.", "clue.gelu.", "clue.layer_norm.")):
            behind = [u for u in node.users if nodes.index(u) > turn and "grad" in str(u.target)]
            assert not behind, f"{node} is kept for {behind}"
    kernels.fuse(traced.graph)  # a second time: nothing is left to do
    assert count(traced) == found


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_the_fused_graph_computes_the_same(batch_norm: str, net: str) -> None:
    """In eager PyTorch, by the operators' references, to float32's accuracy (constants are float32)."""
    traced, chosen = programs(batch_norm, net)
    for each in traced:
        given = inputs(chosen[each.program.name])
        for port, got, want in zip(each.program.outputs, each(*given), each.program.fn(*given), strict=True):
            scale = want.abs().max().clamp_min(1e-9)
            assert ((got - want).abs().max() / scale).item() < 2e-5, f"{each.program.name} {port.name}"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_the_library_computes_the_same(
    batch_norm: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUE_KERNELS", str(library()))
    engine = OnnxClueEngine(1)
    traced, _ = programs(batch_norm, net)
    for each in traced:
        program = each.program
        path = tmp_path / f"{program.name}.onnx"
        path.write_bytes(convert_program(each, path.name, onnx_kernels)[path.name])
        onnx.checker.check_model(str(path))
        given = inputs(program, torch.float64)
        want = program.fn(*given)
        session = engine.load(path, _declared(program))
        arrays = {p.name: t.float().numpy() for p, t in zip(program.inputs, given, strict=True)}
        outputs = {p.name: np.empty(p.shape, np.float32) for p in program.outputs}
        session.run(arrays, outputs)
        for port, due in zip(program.outputs, want, strict=True):
            error = np.abs(outputs[port.name] - due.detach().numpy()).max() / max(
                due.abs().max().item(), 1e-9
            )
            assert error < 2e-5, f"{program.name} {port.name}: {error}"
        if program.name == "step":  # written over what they replace, the results are the same
            assert session.in_place.items() >= {"params_next": "params", "momentum_next": "momentum"}.items()
            over = {name: arrays[session.in_place[name]] for name in session.in_place}
            session.run(arrays, {**{name: array.copy() for name, array in outputs.items()}, **over})
            for name, array in over.items():
                np.testing.assert_array_equal(array, outputs[name])


@pytest.mark.parametrize("net", NETS)
def test_the_shapes_of_our_nodes_results_are_known(net: str) -> None:
    """ONNX Runtime cannot infer them, and puts a result in its argument's memory only where both fit."""
    step = next(t for t in programs("batch", net)[0] if t.program.name == "step")
    model = onnx.load_from_string(convert_program(step, "step.onnx", onnx_kernels)["step.onnx"])
    made = {name for node in model.graph.node if node.domain == "clue" for name in node.output if name}
    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    assert len(made) > 20
    assert made <= known.keys()
    assert all(known[name].type.tensor_type.HasField("shape") for name in made)


def _declared(program: Program) -> DeviceProgram:
    """The program as a device reads it from a manifest."""

    def ports(given: tuple[Port, ...]) -> tuple[DevicePort, ...]:
        return tuple(DevicePort(p.name, p.role, p.shape, "") for p in given)

    golden = Golden("", 0, {}, {}, {})
    return DeviceProgram(program.name, BATCH, ports(program.inputs), ports(program.outputs), 0, 0, {}, golden)


def test_a_bundle_agrees_with_its_golden_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUE_KERNELS", str(library()))
    torch.manual_seed(0)
    recipe = ExportRecipe(target="host", runtimes=("onnx-clue",), batch=BATCH, kept_at_least=0)
    path = export(Net(), SPEC, tmp_path / "net.clue", recipe)
    (found,) = check(Bundle.open(path), ["onnx-clue"])
    assert found.results
    assert found.ok


def test_planned_is_the_fused_graph() -> None:
    """What is made again is not counted, nor are weights read where they lie."""
    step = programs("batch")[1]["step"]
    how: dict[str, Any] = {"overrides": onnx_clue.OVERRIDES, "passes": onnx_clue.PASSES}
    planned = trace(step, **how, rules=onnx_clue.MEMORY)
    assert count(planned)["clue.sgd"] == 1
    assert planned.peak_bytes < 0.9 * trace(step, **how, rules=onnx_memory.RULES).peak_bytes


def test_a_device_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLUE_KERNELS", str(tmp_path / "nowhere.so"))
    with pytest.raises(ClueError, match=r"need the kernel library.*CLUE_KERNELS.*--runtime onnx"):
        OnnxClueEngine(1)


def test_a_file_that_is_no_library_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "libclue_kernels.so"
    path.write_bytes(b"no library")
    monkeypatch.setenv("CLUE_KERNELS", str(path))
    with pytest.raises(ClueError, match="onnxruntime cannot use"):
        OnnxClueEngine(1).load(tmp_path / "x.onnx", None)  # type: ignore[arg-type]
