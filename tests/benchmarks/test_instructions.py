"""Counts of a step: the difference's arithmetic, the driver here, the plugin where it is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import count
import numpy as np
import onnx
import programs_of
import pytest
import run_steps
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
QEMU = Path(os.environ.get("CLUE_QEMU_PLUGIN") or ROOT / ".cache" / "qemu-plugin")
AARCH64 = Path(os.environ.get("CLUE_AARCH64") or ROOT / ".cache" / "aarch64")
EMULATED = (QEMU / "libcounter.so").is_file()


def counts(total: int, fma: int, load: int) -> dict[str, int]:
    rest = total - fma - load
    zeros = dict.fromkeys(("fma_scalar", "simd", "load_simd", "store_simd", "store", "branch"), 0)
    return {"fma_vector": fma, **zeros, "load": load, "integer": rest, "total": total}


def test_a_step_is_the_difference_of_two_marks_and_the_first_are_left_out() -> None:
    first = [counts(1000, 0, 50), counts(9000, 500, 60), counts(11000, 1300, 70), counts(13010, 2100, 80)]
    second = [counts(1007, 0, 50), counts(9900, 500, 60), counts(11900, 1300, 70), counts(13900, 2100, 80)]
    found = count.one_step([first, second], 1)
    assert found["step"]["fma_vector"] == 800
    assert found["step"]["load"] == 10
    assert (
        found["step"]["total"] == 2000
    )  # of 2000, 2010, 2000, 2000; the 8000 of the first step is not in it
    assert found["spread"] == pytest.approx(10 / 2000)
    assert found["steps"] == 4


@pytest.mark.parametrize(
    ("total", "fma", "load", "cycles"),
    [(4000, 100, 100, 1000), (4000, 3000, 100, 1500), (4000, 100, 2600, 1300)],
)
def test_the_fewest_cycles_are_those_of_the_busiest_part(
    total: int, fma: int, load: int, cycles: int
) -> None:
    assert count.fewest_cycles(counts(total, fma, load)) == cycles


def accumulator(folder: Path) -> programs_of.Target:
    """state_next = state + x @ x, as an ONNX file with its ports."""
    shape = [16, 16]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "x"], ["product"]),
            helper.make_node("Add", ["state", "product"], ["state_next"]),
        ],
        "accumulator",
        [value(name, TensorProto.FLOAT, shape) for name in ("state", "x")],
        [value("state_next", TensorProto.FLOAT, shape)],
    )
    file = folder / "accumulator.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return programs_of.given(file, programs_of.ENGINES["onnx"], folder)


def test_what_a_run_returns_goes_into_the_next(tmp_path: Path) -> None:
    target = accumulator(tmp_path)
    ports = json.loads(target.ports.read_text())
    assert ports["inputs"] == {"state": [16, 16], "x": [16, 16]}
    rng = np.random.default_rng(0)
    state, x = (run_steps.drawn(port, rng) for port in run_steps.program_of(ports).inputs)
    for times in (1, 3):
        found = run_steps.run(target.engine, target.file, ports, times)
        assert found["state_next"] == pytest.approx(np.abs(state + times * (x @ x)).mean(), rel=1e-5)
        assert found == count.here(target, times)  # as a process of its own


def test_a_port_that_is_not_float32_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("b", TensorProto.INT64, [2])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "whole.onnx")
    with pytest.raises(SystemExit, match="a is not float32"):
        programs_of.given(tmp_path / "whole.onnx", "", tmp_path)


def test_a_program_that_fails_is_recorded_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(count.EndedError, match=r"exit status 3: gone"):
        count._run(["sh", "-c", "echo gone >&2; exit 3"], dict(os.environ))
    with pytest.raises(count.EndedError, match="SIGSEGV"):
        count._run(["sh", "-c", "kill -SEGV $$"], dict(os.environ))
    failed = {"model": "m", "batch": 1, "runtime": "litert", "failed": "SIGSEGV: x\ny"}
    assert "| SIGSEGV: x |" in count.table([failed])


@pytest.mark.full
@pytest.mark.skipif(
    not EMULATED or not shutil.which("aarch64-linux-gnu-gcc"),
    reason="no plugin (benchmarks/instructions/build.sh, CLUE_QEMU_PLUGIN) or no aarch64-linux-gnu-gcc",
)
def test_the_plugin_counts_what_was_written(tmp_path: Path) -> None:
    """An assembler program without a C library: every class, a known number of times."""
    source = tmp_path / "known.s"
    source.write_text(
        """
        .global _start
        _start: mov x9, #1000              // integer
                adr x10, place             // integer
        again:  fmla v0.4s, v1.4s, v2.4s   // fma_vector
                fmls v0.4s, v1.4s, v2.s[3] // fma_vector
                fmla v3.2d, v4.2d, v5.2d   // fma_vector
                fmadd s0, s1, s2, s3       // fma_scalar
                fmul v0.4s, v1.4s, v2.4s   // simd
                fmla v0.2s, v1.2s, v2.2s   // simd: 64 bit
                ldr q1, [x10]              // load_simd
                ldp q1, q2, [x10]          // load_simd
                ld1 {v1.4s}, [x10]         // load_simd
                str q1, [x10]              // store_simd
                st1 {v1.4s}, [x10]         // store_simd
                ldr x1, [x10]              // load
                ldrsw x1, [x10]            // load
                ldp x1, x2, [x10]          // load
                ldr x1, place              // load
                stp x1, x2, [x10]          // store
                strb w1, [x10]             // store
                cmp x9, x10                // integer
                subs x9, x9, #1            // integer
                b.ne again                 // branch
                mov x0, #0
                mov x8, #93
                svc #0                     // branch
                .data
                .balign 16
        place:  .zero 64
        """.replace("ldr x1, place ", "ldr x1, near ").replace("svc #0 ", "svc #0\n near: .quad 1 ")
    )
    program, out = tmp_path / "known", tmp_path / "counts.json"
    build = ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,--no-relax", source, "-o", program]
    subprocess.run(build, check=True)
    plugin = f"{QEMU / 'libcounter.so'},out={out}"
    subprocess.run([QEMU / "qemu-aarch64", "-cpu", "cortex-a76", "-plugin", plugin, program], check=True)
    found = json.loads(out.read_text())
    assert found["marks"] == []
    expected = {
        "fma_vector": 3000, "fma_scalar": 1000, "simd": 2000, "load_simd": 3000, "store_simd": 2000,
        "load": 4000, "store": 2000, "branch": 1001, "integer": 2004,
    }  # fmt: skip
    assert found["end"] == {**expected, "total": sum(expected.values())}


@pytest.mark.full
@pytest.mark.skipif(
    not EMULATED or not (AARCH64 / "complete").is_file(),
    reason="no plugin (CLUE_QEMU_PLUGIN) or no aarch64 Python (CLUE_AARCH64)",
)
def test_an_onnx_file_is_counted_on_the_emulated_processor(tmp_path: Path) -> None:
    target = accumulator(tmp_path)
    emulator = count.Emulator(QEMU.resolve(), AARCH64.resolve())
    record = count.count(emulator, target, 2, 2, 1)
    assert "failed" not in record, record
    # 16 x 16 x 16 multiply-adds in vectors of 4
    assert record["step"]["fma_vector"] == pytest.approx(1024, rel=0.2)
    assert record["difference_to_this_computer"] < 1e-5
