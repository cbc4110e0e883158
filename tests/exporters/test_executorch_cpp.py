"""The C++ example: compiled against the wheel's libraries, it runs programs as eager PyTorch does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clue_mobile import methods, models, programs
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from pi_runtime import golden
from pi_runtime.bundle import Bundle, Program
from pi_runtime.engine import Arrays, Session

EXAMPLE = Path(__file__).parents[2] / "exporters" / "examples" / "executorch_cpp"
TOLERANCE = 5e-5  # of an output's scale

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
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """digits_cnn as `clue-mobile export` writes it: all programs in one file."""
    spec = models.resolve_spec("digits_cnn")
    path = tmp_path_factory.mktemp("bundle") / "digits.clue"
    recipe = ExportRecipe("host", runtimes=("executorch",), hyperparameters={"batch_norm": "frozen"})
    return Bundle.open(export(models.load(spec, None, seed=0), spec, path, recipe))


def program_file(bundle: Bundle) -> Path:
    """The one file of the bundle's programs."""
    (name,) = {program.files["executorch"].file for program in bundle.programs.values()}
    return bundle.file(name)


def lowered(module: nn.Module, example: tuple[Tensor, ...], path: Path, plan: Any = None) -> Path:
    """A .pte file with the module as its method `product`."""
    edge = exir.to_edge({"product": torch.export.export(module, example)})
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


def agree(found: Sequence[np.ndarray[Any, Any]], wanted: Sequence[Tensor]) -> None:
    """The same, within rounding, and not all zero."""
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        expected = want.detach().numpy().reshape(-1)
        scale = np.abs(expected).max()
        assert scale > 0
        assert np.abs(got - expected).max() <= TOLERANCE * scale


def test_it_lists_the_programs(runner: Path, bundle: Bundle) -> None:
    report = json.loads(call(runner, program_file(bundle)).stdout)
    assert report["programs"] == sorted(bundle.programs)
    assert report["runs"] == []


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

    @property
    def in_place(self) -> Mapping[str, str]:
        """See `Session`."""
        return {}

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """See `Session.run`."""
        name = self.program.name
        given = [torch.from_numpy(inputs[port.name]) for port in self.program.inputs]
        ran = run(self.engine.runner, self.path, self.engine.folder, {name: given})
        for port, got in zip(self.program.outputs, ran.outputs[name], strict=True):
            outputs[port.name][...] = got.reshape(port.shape)


def test_every_program_of_a_bundle_gives_its_golden_outputs(
    runner: Path, bundle: Bundle, tmp_path: Path
) -> None:
    results = golden.check(bundle, Cpp(runner, tmp_path))
    outputs = {(p.name, port.name) for p in bundle.programs.values() for port in p.outputs}
    assert {(result.program, result.output) for result in results} == outputs
    assert [result for result in results if not result.ok] == []


class Product(nn.Module):
    """Two outputs, one of them a scalar."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """a b, and the mean of its exponential."""
        c = torch.bmm(a.unsqueeze(0), b.unsqueeze(0)).squeeze(0)
        return c, torch.exp(c).mean()


MATRICES = (torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), torch.ones(4, 2) / 3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one small program."""
    return lowered(Product(), MATRICES, tmp_path_factory.mktemp("small") / "p.pte")


def test_arrays_of_the_application_may_be_the_programs_own(runner: Path, tmp_path: Path) -> None:
    """Inputs and outputs that the file has no memory for are used in place."""
    plan = exir.passes.MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    file = lowered(Product(), MATRICES, tmp_path / "p.pte", plan)
    ran = run(runner, file, tmp_path, {"product": MATRICES})
    agree(ran.outputs["product"], Product()(*MATRICES))


def test_inputs_come_from_weights_and_from_earlier_runs(runner: Path, bundle: Bundle, tmp_path: Path) -> None:
    """A step of training and a prediction with what it made, in one call."""
    spec = models.resolve_spec("digits_cnn")
    recipe = programs.build(
        FlatModel(models.load(spec, None, seed=0), spec),
        "clue",
        methods.configure("clue", {"batch_norm": "frozen"}),
        bundle.batch,
    )
    step, predict = (next(p for p in recipe.programs if p.name == name) for name in ("step", "predict"))
    generator = torch.Generator().manual_seed(1)
    weights = load_file(bundle.file("weights.safetensors"))
    others = [torch.rand(port.shape, generator=generator) for port in step.inputs if port.role != "state"]
    x = torch.rand(predict.inputs[-1].shape, generator=generator)
    file = bundle.file("weights.safetensors")
    calls: dict[str, Sequence[object]] = {
        "step": [f"{file}:params", f"{file}:buffers", *others],
        "predict": ["step.0", f"{file}:buffers", x],
    }
    ran = run(runner, program_file(bundle), tmp_path, calls, "--single-thread")
    for row, program in zip(ran.report["runs"], (step, predict), strict=True):
        assert row["outputs"] == [list(port.shape) for port in program.outputs]
        assert row["planned_bytes"] > 0
        assert row["load_ms"] >= 0
        assert len(row["run_ms"]) == 1
    stepped = step.fn(weights["params"], weights["buffers"], *others)
    agree(ran.outputs["step"], stepped)
    agree(ran.outputs["predict"], predict.fn(stepped[0].detach(), weights["buffers"], x))


def test_a_safetensors_file_may_hold_other_things(runner: Path, small: Path, tmp_path: Path) -> None:
    """Tensors before and after, of another type, and metadata with what ends a JSON string."""
    weights = tmp_path / "weights.safetensors"
    others = {"a": torch.zeros(3, dtype=torch.int64), "z": torch.zeros(2)}
    save_file({**others, "left": MATRICES[0], "right": MATRICES[1]}, weights, {"note": 'say "no", {[\\'})
    ran = run(runner, small, tmp_path, {"product": [f"{weights}:left", f"{weights}:right"]})
    agree(ran.outputs["product"], Product()(*MATRICES))


def test_a_repeated_run_sees_the_same_inputs(runner: Path, small: Path, tmp_path: Path) -> None:
    for index, matrix in enumerate(MATRICES):
        matrix.numpy().tofile(tmp_path / f"{index}.f32")
    done = call(
        runner,
        small,
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
    runner: Path, small: Path, tmp_path: Path, text: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "noise.pte").write_bytes(bytes(range(250)) * 3 + b".")
    for index, matrix in enumerate(MATRICES):
        matrix.numpy().tofile(tmp_path / f"{index}.f32")
    whole = tmp_path / "w.safetensors"
    save_file({"a": MATRICES[0].clone(), "n": torch.zeros(12, dtype=torch.int32)}, whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:20])
    (tmp_path / "short.safetensors").write_bytes(whole.read_bytes()[:-4])
    done = call(runner, *(a.replace("FOLDER", str(tmp_path)).replace("FILE", str(small)) for a in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("clue_runner: ")]
    assert len(said) == 1
    assert text.replace("FOLDER", str(tmp_path)) in said[0]
