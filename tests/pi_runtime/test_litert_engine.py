from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import interpreter as ai_edge

from exporters import litert_graph
from pi_runtime.bundle import Golden, Port, Program
from pi_runtime.errors import ClueError
from pi_runtime.litert_engine import LitertEngine

N = 1 << 16
F32 = torch.float32


def program(name: str, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> Program:
    ports = [tuple(Port(n, "carry", s, n) for n, s in p.items()) for p in (inputs, outputs)]
    return Program(name, 1, ports[0], ports[1], 0, 0, {}, Golden("", 0, {}, {}, {}))


def rename(graph: litert_graph.Graph, tensor: int, name: str) -> int:
    graph.tensors[tensor].name = name.encode()
    return tensor


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`step`: w' = w - lr * w and its largest element, scalars of shape [] in and out; `double`: 2 * w."""
    model = litert_graph.Model()
    for name in ("double", "step"):
        g = litert_graph.Graph(model)
        w = g.tensor((N,), F32, "w")
        if name == "double":
            out = g.add("ADD", [w, w], (N,), F32, options="AddOptions")
            model.add(name, g, [w], [rename(g, out, "out")])
            continue
        lr = g.tensor((), F32, "lr")
        move = g.add("MUL", [w, lr], (N,), F32, options="MulOptions")
        new = rename(g, g.add("SUB", [w, move], (N,), F32, options="SubOptions"), "w_new")
        top = g.add("REDUCE_MAX", [new, g.ints([0])], (), F32, options="ReducerOptions", keepDims=False)
        model.add(name, g, [w, lr], [new, rename(g, top, "largest")])
    made = tmp_path_factory.mktemp("litert") / "programs.tflite"
    made.write_bytes(model.to_bytes())
    return made


STEP = program("step", {"w": (N,), "lr": ()}, {"w_new": (N,), "largest": ()})
DOUBLE = program("double", {"w": (N,)}, {"out": (N,)})


def scalar(value: float) -> Any:
    return np.full((), value, np.float32)


def test_the_engine_describes_itself() -> None:
    engine = LitertEngine(2)
    assert (engine.name, engine.backend, engine.threads) == ("litert", "cpu", 2)
    assert engine.version[0].isdigit()
    assert LitertEngine().threads >= 1


def test_results_go_into_the_given_arrays(path: Path) -> None:
    session = LitertEngine(1).load(path, STEP)
    here, there, largest = np.linspace(0, 1, N, dtype=np.float32), np.zeros(N, np.float32), scalar(0)
    expected = here.copy()
    for _ in range(3):
        address = there.ctypes.data
        session.run({"w": here, "lr": scalar(0.5)}, {"w_new": there, "largest": largest})
        expected = expected - expected * np.float32(0.5)
        assert there.ctypes.data == address
        assert np.array_equal(there, expected)
        assert float(largest) == expected.max()
        here, there = there, here


def test_programs_of_a_file_are_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Counted(ai_edge.Interpreter):  # type: ignore[misc, unused-ignore]
        def __init__(self, model_path: str, **options: Any) -> None:
            opened.append(model_path)
            super().__init__(model_path=model_path, **options)

    monkeypatch.setattr(ai_edge, "Interpreter", Counted)
    engine = LitertEngine(1)
    step, double = engine.load(path, STEP), engine.load(path, DOUBLE)
    w, out, new = np.ones(N, np.float32), np.zeros(N, np.float32), np.zeros(N, np.float32)
    for _ in range(2):
        double.run({"w": w}, {"out": out})
        step.run({"w": w, "lr": scalar(1)}, {"w_new": new, "largest": scalar(0)})
        assert (out == 2).all()
        assert (new == 0).all()
    assert opened == [str(path)]
    del step, double
    gc.collect()
    engine.load(path, DOUBLE)  # memory was given back with the last session
    assert len(opened) == 2


@pytest.mark.parametrize("wrong", [
    np.zeros(N - 1, np.float32), np.zeros(N, np.float64), np.zeros((N, 2), np.float32)[:, 0],
    np.zeros((N, 1), np.float32), np.float32(1),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(path: Path, wrong: Any) -> None:
    session = LitertEngine(1).load(path, DOUBLE)
    good = np.zeros(N, np.float32)
    with pytest.raises(ClueError, match=r"program double, port w: expected a contiguous float32"):
        session.run({"w": wrong}, {"out": good})
    with pytest.raises(ClueError, match=r"program double, port out: expected a contiguous float32"):
        session.run({"w": good}, {"out": wrong})


@pytest.mark.parametrize(("message", "changed"), [
    ("input rate is missing in the file", program("double", {"w": (N,), "rate": ()}, {"out": (N,)})),
    ("input w is", program("double", {"w": (N, 1)}, {"out": (N,)})),
    ("output out is .* in the file and missing in the manifest", program("double", {"w": (N,)}, {})),
    ("has no signature triple, only double, step", program("triple", {"w": (N,)}, {"out": (N,)})),
])  # fmt: skip
def test_signatures_must_be_those_of_the_manifest(path: Path, message: str, changed: Program) -> None:
    with pytest.raises(ClueError, match=message):
        LitertEngine(1).load(path, changed)


def test_a_file_that_is_no_program_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"no flatbuffer")
    for name in ("bad.tflite", "gone.tflite"):
        with pytest.raises(ClueError, match=f"ai-edge-litert cannot load .*{name}"):
            LitertEngine(1).load(tmp_path / name, DOUBLE)


def test_an_operator_that_the_runtime_lacks_is_a_clear_error(tmp_path: Path) -> None:
    model = litert_graph.Model()
    g = litert_graph.Graph(model)
    w = g.tensor((N,), F32, "w")
    model.code("ADD", 99)
    g.operators = []
    out = rename(g, g.add("ADD", [w, w], (N,), F32, options="AddOptions"), "out")
    g.operators[0].opcodeIndex = 0
    model.add("double", g, [w], [out])
    (tmp_path / "new.tflite").write_bytes(model.to_bytes())
    with pytest.raises(ClueError, match=r"cannot load .*new.tflite: .*opcode 'ADD' version '99'"):
        LitertEngine(1).load(tmp_path / "new.tflite", DOUBLE)


@pytest.mark.parametrize("threads", [-1, 0, 100_000])
def test_threads_have_bounds(threads: int) -> None:
    with pytest.raises(ClueError, match=f"threads is {threads}: it must be from 1 to 256"):
        LitertEngine(threads)


def test_missing_ai_edge_litert_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ClueError, match=r"pip install ai-edge-litert, or 'clue-mobile\[litert\]'"):
        LitertEngine()
