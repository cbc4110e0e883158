from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor

from clue_mobile import engines, models, plan, programs
from clue_mobile.engines import executorch as engine_module
from clue_mobile.engines.executorch import ExecutorchEngine
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from exporters import executorch as exporter
from pi_runtime import golden
from pi_runtime.bundle import Bundle, Golden, Port, Program

N = 1 << 12


def made(
    path: Path, *wanted: tuple[str, Any, dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]
) -> list[Program]:
    """Write a file of methods (name, function, shapes of inputs, of outputs); the programs that they are."""
    traces, described = [], []
    for name, fn, inputs, outputs in wanted:
        sides = [tuple(plan.Port(n, "carry", s, n) for n, s in side.items()) for side in (inputs, outputs)]
        traces.append(programs.trace(plan.Program(name, 1, *sides, fn), overrides=exporter.OVERRIDES))
        ports = [tuple(Port(n, "carry", s, n) for n, s in side.items()) for side in (inputs, outputs)]
        described.append(Program(name, 1, *ports, 0, 0, {}, Golden("", 0, 1.0, {}, {})))
    path.write_bytes(exporter.convert(traces, None, lambda name: None).files["programs.pte"])  # type: ignore[arg-type]
    return described


def move(w: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
    moved = w - lr * w
    return moved, moved.abs().amax()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Program]]:
    """Two methods, with scalars of shape [] in and out."""
    path = tmp_path_factory.mktemp("pte") / "programs.pte"
    step = ("step", move, {"w": (N,), "lr": ()}, {"w_new": (N,), "largest": ()})
    twice = ("twice", lambda w: (w * 2,), {"w": (N,)}, {"out": (N,)})
    return path, made(path, step, twice)


def scalar(value: float) -> np.ndarray[Any, Any]:
    return np.array(value, np.float32)


@pytest.fixture
def engine() -> ExecutorchEngine:
    gc.collect()
    return ExecutorchEngine(1)


def test_writes_into_the_given_arrays(engine: ExecutorchEngine, file: tuple[Path, list[Program]]) -> None:
    session = engine.load(file[0], file[1][0])
    w, w_new, largest = np.full(N, 4, np.float32), np.zeros(N, np.float32), scalar(0)
    session.run({"w": w, "lr": scalar(0.25)}, {"w_new": w_new, "largest": largest})
    assert np.all(w_new == 3)
    assert largest[()] == 3
    assert np.all(w == 4)
    w[7] = 8
    session.run({"w": w, "lr": scalar(0.5)}, {"w_new": w_new, "largest": largest})
    assert (w_new[6], w_new[7], float(largest)) == (2, 4, 4)


def test_methods_of_one_file_share_it(engine: ExecutorchEngine, file: tuple[Path, list[Program]]) -> None:
    step, twice = (engine.load(file[0], program) for program in file[1])
    assert step._file is twice._file
    w, out = np.arange(N, dtype=np.float32), np.zeros(N, np.float32)
    for _ in range(3):  # their working memory is shared too
        step.run({"w": w, "lr": scalar(0.5)}, {"w_new": out, "largest": scalar(0)})
        assert np.array_equal(out, w / 2)
        twice.run({"w": w}, {"out": out})
        assert np.array_equal(out, w * 2)


def test_a_session_outlives_its_engine(file: tuple[Path, list[Program]]) -> None:
    session = ExecutorchEngine(1).load(file[0], file[1][1])
    gc.collect()
    out = np.zeros(N, np.float32)
    session.run({"w": np.ones(N, np.float32)}, {"out": out})
    assert np.all(out == 2)


def test_a_changed_file_is_read_anew(engine: ExecutorchEngine, tmp_path: Path) -> None:
    path, out = tmp_path / "a.pte", np.zeros(3, np.float32)
    for factor in (2.0, 5.0):
        (program,) = made(path, ("p", lambda w, f=factor: (w * f,), {"w": (3,)}, {"out": (3,)}))
        os.utime(path, ns=(0, int(factor)))
        engine.load(path, program).run({"w": np.ones(3, np.float32)}, {"out": out})
        assert np.all(out == factor)


@pytest.mark.parametrize("wrong", [
    np.zeros(N - 1, np.float32), np.zeros(N, np.float64), np.zeros((N, 2), np.float32)[:, 0],
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(
    engine: ExecutorchEngine, file: tuple[Path, list[Program]], wrong: Any
) -> None:
    session = engine.load(file[0], file[1][1])
    good = np.zeros(N, np.float32)
    with pytest.raises(ClueError, match="program twice, port w: expected a contiguous float32"):
        session.run({"w": wrong}, {"out": good})
    with pytest.raises(ClueError, match="port out: expected"):
        session.run({"w": good}, {"out": wrong})


def test_ports_must_be_those_of_the_manifest(
    engine: ExecutorchEngine, file: tuple[Path, list[Program]]
) -> None:
    path, (step, twice) = file
    column = (Port("out", "carry", (N, 1), "out"),)
    for name, inputs, outputs, message in (
        ("twice", step.inputs, twice.outputs, r"inputs are \[4096\] in the file and \[4096\], \[\] in"),
        ("twice", twice.inputs, column, "outputs are"),
        ("thrice", twice.inputs, twice.outputs, r"no method thrice \(it has step, twice\)"),
    ):
        changed = Program(name, 1, inputs, outputs, 0, 0, {}, step.golden)
        with pytest.raises(ClueError, match=message):
            engine.load(path, changed)


def test_a_file_that_is_no_program_is_a_clear_error(
    engine: ExecutorchEngine, tmp_path: Path, file: tuple[Path, list[Program]]
) -> None:
    (tmp_path / "bad.pte").write_bytes(b"no flatbuffer" * 100)
    for name in ("bad.pte", "gone.pte"):
        with pytest.raises(ClueError, match=f"executorch cannot load .*{name}"):
            engine.load(tmp_path / name, file[1][0])


def test_threads_have_bounds() -> None:
    for threads in (-1, 0, 100_000):
        with pytest.raises(ClueError, match=f"threads is {threads}: it must be from 1 to 256"):
            ExecutorchEngine(threads)


def test_the_pool_of_threads_is_not_replaced_under_loaded_programs(file: tuple[Path, list[Program]]) -> None:
    gc.collect()
    session = ExecutorchEngine(1).load(file[0], file[1][1])
    with pytest.raises(
        ClueError, match="programs loaded that use 1 threads: another number, 2, needs another"
    ):
        ExecutorchEngine(2)
    del session
    gc.collect()
    assert len(engine_module._live) == 0
    ExecutorchEngine(2)
    assert portable_lib._threadpool_get_thread_count() == 2
    ExecutorchEngine(1)


def test_missing_executorch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(ClueError, match=r"clue-mobile\[executorch\]"):
        ExecutorchEngine()


def test_golden_parity_of_a_bundle(tmp_path: Path) -> None:
    spec = models.resolve_spec("digits_cnn")
    recipe = ExportRecipe(
        target="host", batch=8, runtimes=("onnx", "executorch"), hyperparameters={"saliency_batch": 16}
    )
    bundle = Bundle.open(export(models.load(spec, None, seed=0), spec, tmp_path / "d.clue", recipe))
    assert {p.files["executorch"].file for p in bundle.programs.values()} == {
        "programs/executorch/programs.pte"
    }
    for runtime in ("onnx", "executorch"):
        results = golden.check(bundle, engines.get(runtime, 1))
        assert {result.program for result in results} == set(bundle.programs)
        assert all(result.ok for result in results), [r for r in results if not r.ok]
    torch.set_num_threads(1)
