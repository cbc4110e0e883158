from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pi_runtime.bundle import Golden, Port, Program
from pi_runtime.errors import ClueError
from pi_runtime.onnx_engine import OnnxEngine, OnnxSession

N = 1 << 18


def make(path: Path, inputs: dict[str, list[int]], outputs: dict[str, list[int]], *nodes: Any) -> Program:
    """Write an ONNX file of float32 ports and return the program that describes it."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()]
        for ports in (inputs, outputs)
    ]
    graph = helper.make_graph(list(nodes), "g", *infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    ports = [tuple(Port(n, "carry", tuple(s), n) for n, s in p.items()) for p in (inputs, outputs)]
    return Program("step", 1, ports[0], ports[1], 0, 0, {}, Golden("", 0, 1.0, {}, {}))


@pytest.fixture
def step(tmp_path: Path) -> tuple[Path, Program]:
    """w' = w - lr * w, largest = max |w'|: a big vector, scalars of shape [] in and out."""
    path = tmp_path / "step.onnx"
    program = make(
        path, {"w": [N], "lr": []}, {"w_new": [N], "largest": []},
        helper.make_node("Mul", ["w", "lr"], ["move"]), helper.make_node("Sub", ["w", "move"], ["w_new"]),
        helper.make_node("Abs", ["w_new"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["largest"], keepdims=0),
    )  # fmt: skip
    return path, program


def scalar(value: float) -> np.ndarray[Any, Any]:
    return np.array(value, np.float32)


def test_writes_into_the_given_arrays(step: tuple[Path, Program]) -> None:
    session = OnnxEngine(1).load(*step)
    w, w_new, largest = np.full(N, 4, np.float32), np.zeros(N, np.float32), scalar(0)
    session.run({"w": w, "lr": scalar(0.25)}, {"w_new": w_new, "largest": largest})
    assert np.all(w_new == 3)
    assert largest[()] == 3
    assert np.all(w == 4)


def test_bound_inputs_are_read_anew_each_time(step: tuple[Path, Program]) -> None:
    session = OnnxEngine(1).load(*step)
    w, lr, w_new, largest = np.ones(N, np.float32), scalar(0.5), np.zeros(N, np.float32), scalar(0)
    session.run({"w": w, "lr": lr}, {"w_new": w_new, "largest": largest})
    w[7], lr[...] = 8, 0.25
    session.run({"w": w, "lr": lr}, {"w_new": w_new, "largest": largest})
    assert (w_new[6], w_new[7], float(largest)) == (0.75, 6, 6)


def test_ping_pong_needs_two_bindings(step: tuple[Path, Program], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    original = OnnxSession._bind
    monkeypatch.setattr(OnnxSession, "_bind", lambda *a: made.append(1) or original(*a))
    session = OnnxEngine(1).load(*step)
    here, there, lr, largest = np.ones(N, np.float32), np.zeros(N, np.float32), scalar(0.5), scalar(0)
    addresses = {here.ctypes.data, there.ctypes.data}
    for _ in range(10):
        session.run({"w": here, "lr": lr}, {"w_new": there, "largest": largest})
        here, there = there, here
        assert {here.ctypes.data, there.ctypes.data} == addresses
    assert here[0] == 0.5**10
    assert len(made) == 2


def test_arrays_that_the_caller_drops_stay_alive_for_a_while(step: tuple[Path, Program]) -> None:
    session = OnnxEngine(1).load(*step)
    kept: list[weakref.ref[Any]] = []
    for value in range(100):  # more than are remembered
        w, w_new, largest = np.full(N, value, np.float32), np.zeros(N, np.float32), scalar(0)
        session.run({"w": w, "lr": scalar(0)}, {"w_new": w_new, "largest": largest})
        assert float(largest) == w_new[0] == value
        kept.append(weakref.ref(w))
        del w
        assert kept[-1]() is not None
    gc.collect()
    assert kept[0]() is None


def test_a_shorter_view_of_a_bound_array_is_refused(step: tuple[Path, Program]) -> None:
    session = OnnxEngine(1).load(*step)
    w, outputs = np.ones(N, np.float32), {"w_new": np.zeros(N, np.float32), "largest": scalar(0)}
    session.run({"w": w, "lr": scalar(0)}, outputs)
    with pytest.raises(ClueError, match="port w: expected"):
        session.run({"w": w[:-1], "lr": scalar(0)}, outputs)


@pytest.mark.parametrize("wrong", [
    np.zeros(N - 1, np.float32), np.zeros(N, np.float64), np.zeros((N, 2), np.float32)[:, 0],
    np.zeros((N, 1), np.float32),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(step: tuple[Path, Program], wrong: Any) -> None:
    session = OnnxEngine(1).load(*step)
    outputs = {"w_new": np.zeros(N, np.float32), "largest": scalar(0)}
    with pytest.raises(ClueError, match=r"program step, port w: expected a contiguous float32"):
        session.run({"w": wrong, "lr": scalar(0)}, outputs)
    with pytest.raises(ClueError, match=r"port w_new: expected"):
        session.run({"w": np.zeros(N, np.float32), "lr": scalar(0)}, outputs | {"w_new": wrong})


def test_a_failure_inside_a_program_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "gather.onnx"
    program = make(
        path, {"w": [4], "at": []}, {"out": []},
        helper.make_node("Cast", ["at"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "index"], ["out"]),
    )  # fmt: skip
    session = OnnxEngine(1).load(path, program)
    with pytest.raises(ClueError, match="program step failed in onnxruntime"):
        session.run({"w": np.zeros(4, np.float32), "at": scalar(9)}, {"out": scalar(0)})


def test_a_file_that_is_no_program_is_a_clear_error(tmp_path: Path, step: tuple[Path, Program]) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    for name in ("bad.onnx", "gone.onnx"):
        with pytest.raises(ClueError, match=f"onnxruntime cannot load .*{name}"):
            OnnxEngine(1).load(tmp_path / name, step[1])


@pytest.mark.parametrize(("kind", "change"), [
    ("input lr is missing in the file", {"inputs": (("w", (N,)), ("rate", ()), ("lr", ()))}),
    ("input w is", {"inputs": (("w", (N, 1)), ("lr", ()))}),
    ("output largest is", {"outputs": (("w_new", (N,)),)}),
])  # fmt: skip
def test_ports_must_be_those_of_the_manifest(step: tuple[Path, Program], kind: str, change: Any) -> None:
    path, program = step
    ports = {"inputs": program.inputs, "outputs": program.outputs}
    ports |= {key: tuple(Port(n, "carry", s, n) for n, s in value) for key, value in change.items()}
    if "rate" in str(change):  # a file that lacks one
        make(path, {"w": [N], "rate": []}, {"w_new": [N], "largest": []},
             helper.make_node("Mul", ["w", "rate"], ["w_new"]),
             helper.make_node("ReduceMax", ["w_new"], ["largest"], keepdims=0))  # fmt: skip
    changed = Program("step", 1, ports["inputs"], ports["outputs"], 0, 0, {}, program.golden)
    with pytest.raises(ClueError, match=kind):
        OnnxEngine(1).load(path, changed)


@pytest.mark.parametrize("threads", [-1, 0, 100_000])
def test_threads_have_bounds(threads: int) -> None:
    with pytest.raises(ClueError, match=f"threads is {threads}: it must be from 1 to 256"):
        OnnxEngine(threads)
    assert OnnxEngine().threads >= 1


def test_missing_onnxruntime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ClueError, match=r"clue-mobile\[pi\]"):
        OnnxEngine()
