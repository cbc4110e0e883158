"""The C++ example: compiled against the wheel's libraries, it runs programs as eager PyTorch does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clue_mobile import methods, models, programs
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.spec import ModelSpec
from pi_runtime import golden
from pi_runtime.bundle import Bundle, Program
from pi_runtime.engine import Arrays, Session

EXAMPLE = Path(__file__).parents[2] / "exporters" / "examples" / "executorch_cpp"
TOLERANCE = 1e-5  # of an output's scale

exir = pytest.importorskip("executorch.exir", reason="executorch is not installed")
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@dataclass(frozen=True)
class Ran:
    """What one call of the runner gave: its JSON, and each program's outputs, flattened."""

    report: dict[str, Any]
    outputs: dict[str, list[np.ndarray[Any, Any]]]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled example."""
    path = tmp_path_factory.mktemp("runner") / "clue_runner"
    made = subprocess.run(
        ["sh", EXAMPLE / "build.sh", path, "-O0", "-Werror"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="module")
def recipe() -> programs.Recipe:
    """CLUE on a small classifier with batch norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(9, 3))
    model = FlatModel(module, ModelSpec("tiny", ("a", "b", "c"), (1, 3, 3), (0.4,), (0.3,)))
    return programs.build(model, "clue", methods.configure("clue", {"saliency_batch": 8}), 4)


@pytest.fixture(scope="module")
def program_file(recipe: programs.Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the recipe's programs in one file, on portable kernels."""
    traced = programs.trace_all(recipe.programs)
    return lowered(
        {t.program.name: (t.graph, programs.example_inputs(t.program)) for t in traced},
        tmp_path_factory.mktemp("program") / "tiny.pte",
    )


def lowered(
    methods: dict[str, tuple[nn.Module, tuple[Tensor, ...]]],
    path: Path,
    delegate: bool = False,
    plan: Any = None,
) -> Path:
    """A .pte file of these methods."""
    exported = {name: torch.export.export(module, example) for name, (module, example) in methods.items()}
    unchecked = exir.EdgeCompileConfig(_check_ir_validity=False)
    if delegate:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        edge = exir.to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], compile_config=unchecked
        )
    else:
        edge = exir.to_edge(exported, compile_config=unchecked)
    config = exir.ExecutorchBackendConfig(**({} if plan is None else {"memory_planning_pass": plan}))
    path.write_bytes(edge.to_executorch(config).buffer)
    return path


def call(runner: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The runner's exit status and what it said."""
    return subprocess.run([runner, *map(str, arguments)], capture_output=True, text=True)


def run(runner: Path, file: Path, folder: Path, calls: dict[str, Sequence[object]], *options: str) -> Ran:
    """Run methods on inputs (tensors go through files) in one call; raises where it fails."""
    arguments: list[object] = [file, *options]
    for method, inputs in calls.items():
        arguments += ["--run", method]
        for index, value in enumerate(inputs):
            if isinstance(value, Tensor):
                path = folder / f"{method}.{index}.input"
                value.numpy().tofile(path)
                value = path
            arguments.append(value)
        arguments += ["--out", folder]
    done = call(runner, *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    outputs = {
        each["method"]: [
            np.fromfile(folder / f"{each['method']}.{i}.f32", "<f4") for i in range(len(each["outputs"]))
        ]
        for each in report["runs"]
    }
    return Ran(report, outputs)


def drawn(program: programs.Program, seed: int) -> list[Tensor]:
    """Positive inputs that leave no output constant."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(port.shape, generator=generator) for port in program.inputs]


def agree(found: Sequence[np.ndarray[Any, Any]], wanted: Sequence[Tensor]) -> None:
    """The same, within rounding, and not all zero."""
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        expected = want.detach().numpy().reshape(-1)
        scale = np.abs(expected).max()
        assert scale > 0
        assert np.abs(got - expected).max() <= TOLERANCE * scale


def test_it_lists_the_programs(runner: Path, program_file: Path, recipe: programs.Recipe) -> None:
    report = json.loads(call(runner, program_file).stdout)
    assert report["programs"] == sorted(p.name for p in recipe.programs)
    assert report["runs"] == []


def test_every_program_of_one_file_gives_what_pytorch_gives(
    runner: Path, program_file: Path, recipe: programs.Recipe, tmp_path: Path
) -> None:
    calls = {program.name: drawn(program, seed) for seed, program in enumerate(recipe.programs)}
    ran = run(runner, program_file, tmp_path, calls, "--single-thread")
    for program, row in zip(recipe.programs, ran.report["runs"], strict=True):
        assert row["method"] == program.name
        assert row["outputs"] == [list(port.shape) for port in program.outputs]
        assert row["planned_bytes"] > 0
        assert row["load_ms"] >= 0
        assert len(row["run_ms"]) == 1
        agree(ran.outputs[program.name], program.fn(*calls[program.name]))


@dataclass(frozen=True)
class Cpp:
    """The runner as an engine of a bundle, one process for each run."""

    runner: Path
    folder: Path
    name: str = "executorch"
    version: str = ""
    backend: str = "xnnpack"
    threads: int = 1

    def load(self, path: Path, program: Program) -> Session:
        """See `Engine.load`."""
        return CppProgram(self, path, program)


@dataclass(frozen=True)
class CppProgram:
    """See `Session`."""

    engine: Cpp
    path: Path
    program: Program

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """See `Session.run`."""
        name = self.program.name
        given = [torch.from_numpy(inputs[port.name]) for port in self.program.inputs]
        ran = run(self.engine.runner, self.path, self.engine.folder, {name: given})
        for port, got in zip(self.program.outputs, ran.outputs[name], strict=True):
            outputs[port.name][...] = got.reshape(port.shape)


@pytest.mark.full
def test_a_bundles_programs_give_their_golden_outputs(runner: Path, tmp_path: Path) -> None:
    """What `clue-mobile export` writes: every program of digits_cnn in one file."""
    spec = models.resolve_spec("digits_cnn")
    bundle = Bundle.open(
        export(
            models.load(spec, None, seed=0),
            spec,
            tmp_path / "digits.clue",
            ExportRecipe("host", runtimes=("executorch",)),
        )
    )
    assert len({program.files["executorch"].file for program in bundle.programs.values()}) == 1
    results = golden.check(bundle, Cpp(runner, tmp_path))
    assert {result.program for result in results} == {
        "predict", "predict_1", "saliency", "mask", "teacher", "step",
    }  # fmt: skip
    assert [result for result in results if not result.ok] == []


class Product(nn.Module):
    """Something that the delegate takes whole, two outputs, one of them a scalar."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """a b, and the mean of its exponential."""
        c = torch.bmm(a.unsqueeze(0), b.unsqueeze(0)).squeeze(0)
        return c, torch.exp(c).mean()


MATRICES = (torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), torch.ones(4, 2) / 3)


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method lowered to XNNPACK."""
    return lowered(
        {"product": (Product(), MATRICES)}, tmp_path_factory.mktemp("delegated") / "p.pte", delegate=True
    )


@pytest.mark.parametrize("options", [(), ("--single-thread",)], ids=["threads", "single"])
def test_delegated_programs_run(
    runner: Path, delegated: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert b"XnnpackBackend" in delegated.read_bytes()
    ran = run(runner, delegated, tmp_path, {"product": MATRICES}, *options)
    agree(ran.outputs["product"], Product()(*MATRICES))


def test_arrays_of_the_application_may_be_the_programs_own(runner: Path, tmp_path: Path) -> None:
    """Inputs and outputs that the file has no memory for are used in place."""
    plan = exir.passes.MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    file = lowered({"product": (Product(), MATRICES)}, tmp_path / "p.pte", plan=plan)
    ran = run(runner, file, tmp_path, {"product": MATRICES})
    agree(ran.outputs["product"], Product()(*MATRICES))


def test_inputs_come_from_weights_and_from_earlier_runs(
    runner: Path, program_file: Path, recipe: programs.Recipe, tmp_path: Path
) -> None:
    step = next(p for p in recipe.programs if p.name == "step")
    predict = next(p for p in recipe.programs if p.name == "predict")
    inputs = drawn(step, 3)
    params, buffers = inputs[:2]
    weights = tmp_path / "weights.safetensors"
    # an entry before and after, another type, metadata with what ends a JSON string
    others = {"a": torch.zeros(3, dtype=torch.int64), "z": torch.zeros(2)}
    save_file({**others, "params": params, "buffers": buffers}, weights, {"note": 'say "no", {[\\'})
    x = torch.rand(predict.inputs[-1].shape, generator=torch.Generator().manual_seed(9))
    calls: dict[str, Sequence[object]] = {
        "step": [f"{weights}:params", f"{weights}:buffers", *inputs[2:]],
        "predict": ["step.0", "step.1", x],
    }
    ran = run(runner, program_file, tmp_path, calls)
    stepped = step.fn(*inputs)
    agree(ran.outputs["step"], stepped)
    agree(ran.outputs["predict"], predict.fn(stepped[0].detach(), stepped[1].detach(), x))


def test_a_repeated_run_sees_the_same_inputs(runner: Path, delegated: Path, tmp_path: Path) -> None:
    for index, matrix in enumerate(MATRICES):
        matrix.numpy().tofile(tmp_path / f"{index}.f32")
    done = call(
        runner,
        delegated,
        "--run",
        "product",
        tmp_path / "0.f32",
        tmp_path / "1.f32",
        "--out",
        tmp_path,
        "--repeat",
        3,
    )
    assert len(json.loads(done.stdout)["runs"][0]["run_ms"]) == 3
    agree([np.fromfile(tmp_path / f"product.{i}.f32", "<f4") for i in range(2)], Product()(*MATRICES))


def _wrong(text: str, *arguments: str) -> Any:
    return pytest.param(text, arguments, id=text)


@pytest.mark.parametrize(("text", "arguments"), [
    _wrong("no program file is given"),
    _wrong("cannot load FOLDER/none.pte", "FOLDER/none.pte"),
    _wrong("cannot load FOLDER/noise.pte", "FOLDER/noise.pte"),
    _wrong("has no program train: it has product", "FILE", "--run", "train"),
    _wrong("product takes 2 inputs, given are 1", "FILE", "--run", "product", "FOLDER/0.f32"),
    _wrong("has 8 numbers, input 0 of product is [3, 4]", "FILE", "--run", "product", *["FOLDER/1.f32"] * 2),
    _wrong("cannot open FOLDER/none.f32", "FILE", "--run", "product", "FOLDER/none.f32", "FOLDER/1.f32"),
    _wrong("is no file of float32 numbers", "FILE", "--run", "product", "FOLDER/noise.pte", "FOLDER/1.f32"),
    _wrong("has no tensor b", "FILE", "--run", "product", "FOLDER/w.safetensors:b", "FOLDER/1.f32"),
    _wrong("tensor n is not float32", "FILE", "--run", "product", "FOLDER/w.safetensors:n", "FOLDER/1.f32"),
    _wrong("is cut off", "FILE", "--run", "product", "FOLDER/cut.safetensors:a", "FOLDER/1.f32"),
    _wrong("lies outside the file", "FILE", "--run", "product", "FOLDER/short.safetensors:a", "FOLDER/1.f32"),
    _wrong("--repeat must be at least 1", "FILE", "--run", "product", "--repeat", "0"),
    _wrong("--fast is not known", "FILE", "--run", "product", "--fast"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence(
    runner: Path, delegated: Path, tmp_path: Path, text: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "noise.pte").write_bytes(bytes(range(250)) * 3 + b".")
    for index, matrix in enumerate(MATRICES):
        matrix.numpy().tofile(tmp_path / f"{index}.f32")
    whole = tmp_path / "w.safetensors"
    save_file({"a": MATRICES[0].clone(), "n": torch.zeros(12, dtype=torch.int32)}, whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:20])
    (tmp_path / "short.safetensors").write_bytes(whole.read_bytes()[:-4])
    done = call(
        runner, *(a.replace("FOLDER", str(tmp_path)).replace("FILE", str(delegated)) for a in arguments)
    )
    assert done.returncode == 1
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("clue_runner: ")]
    assert len(said) == 1
    assert text.replace("FOLDER", str(tmp_path)) in said[0]
