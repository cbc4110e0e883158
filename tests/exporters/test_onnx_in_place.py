"""Which outputs of an ONNX file may be written over the input that they replace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from clue_mobile.lowering.optimizer import sgd
from clue_mobile.plan import Port, Program
from clue_mobile.programs import trace
from exporters.onnx import convert_program
from exporters.onnx_in_place import KEY
from pi_runtime.bundle import Golden
from pi_runtime.bundle import Port as DevicePort
from pi_runtime.bundle import Program as DeviceProgram
from pi_runtime.onnx_engine import OnnxEngine, OnnxSession

N = 6


def exported(fn: Callable[..., tuple[Tensor, ...]], roles: dict[str, str]) -> tuple[bytes, Program]:
    """`fn` of w and v, [N, N], as a file; roles: of the outputs, "w_next", "v_next" or a metric."""
    inputs = tuple(Port(name, "state", (N, N), name) for name in "wv")
    examples = [torch.full((N, N), 0.5)] * 2
    outputs = tuple(
        Port(name, role, tuple(t.shape), name.removesuffix("_next"))  # type: ignore[arg-type]
        for (name, role), t in zip(roles.items(), fn(*examples), strict=True)
    )
    program = Program("p", 1, inputs, outputs, fn)
    return convert_program(trace(program), "p.onnx")["p.onnx"], program


def said(data: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}


def step(w: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """SGD on what reads w in three ways; the gradient is joined of pieces, as a program's is."""
    upper = (2 * w + w.reshape(N * N).mean())[:2]
    gradient = torch.cat([upper, (w @ w)[2:] * 0.1])
    return sgd(w, v, gradient, torch.tensor(0.1), 0.9)


def test_an_update_may_be_in_place_and_computes_the_same(tmp_path: Path) -> None:
    data, program = exported(step, {"w_next": "state", "v_next": "state"})
    assert said(data) == {KEY: "v_next=v w_next=w"}
    session = load(tmp_path, data, program)
    assert session.in_place == {"v_next": "v", "w_next": "w"}
    generator = np.random.default_rng(0)
    w, v = (generator.normal(size=(N, N)).astype(np.float32) for _ in range(2))
    here, apart = {"w": w.copy(), "v": v.copy()}, {"w": w.copy(), "v": v.copy()}
    for _ in range(5):
        session.run(here, {"w_next": here["w"], "v_next": here["v"]})
        new = {"w_next": np.empty_like(w), "v_next": np.empty_like(v)}
        session.run(apart, new)
        apart = {"w": new["w_next"], "v": new["v_next"]}
    assert not np.array_equal(here["w"], w)
    for name, array in here.items():
        np.testing.assert_array_equal(array, apart[name])


@pytest.mark.parametrize(("fn", "roles"), [
    (lambda w, v: (w - v, w.sum()), {"w_next": "state", "total": "metric"}),  # who knows when it is read
    (lambda w, v: (w @ v,), {"w_next": "state"}),  # each element needs others
    (lambda w, v: (w @ v + 1,), {"w_next": "state"}),  # the runtime makes one node of both
    (lambda w, v: (w.t() + v,), {"w_next": "state"}),
    (lambda w, v: (v + 1, w + 1), {"w_next": "state", "v_next": "state"}),  # written before it is read
    (lambda w, v: (w.clone(),), {"w_next": "state"}),
], ids=["metric", "product", "product and sum", "transposed", "crossed", "copy"])  # fmt: skip
def test_others_may_not(fn: Callable[..., tuple[Tensor, ...]], roles: dict[str, str]) -> None:
    data, _ = exported(fn, roles)
    assert "w_next" not in said(data).get(KEY, "")


def test_two_results_never_share_an_array() -> None:
    twice = Port("w_next", "state", (N, N), "w")
    inputs = tuple(Port(name, "state", (N, N), name) for name in "wv")
    outputs = (twice, Port("again", "carry", (N, N), "w"))
    program = Program("p", 1, inputs, outputs, lambda w, v: (w + v, w - v))
    data = convert_program(trace(program), "p.onnx")["p.onnx"]
    assert len(said(data).get(KEY, "").split()) <= 1


def load(folder: Path, data: bytes, program: Program) -> OnnxSession:
    path = folder / "p.onnx"
    path.write_bytes(data)
    sides = [
        tuple(DevicePort(p.name, p.role, p.shape, p.binds) for p in ports)
        for ports in (program.inputs, program.outputs)
    ]
    declared = DeviceProgram("p", 1, *sides, 0, 0, {}, Golden("", 0, {}, {}, {}))
    return OnnxEngine(1).load(path, declared)
