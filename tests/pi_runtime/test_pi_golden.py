from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from pi_runtime import Bundle, ClueError, Runtime
from pi_runtime.golden import GoldenResult, check
from pi_runtime.onnx_engine import OnnxEngine


def results(root: Path) -> dict[str, GoldenResult]:
    found = check(Bundle.open(root), OnnxEngine(1))
    return {f"{result.program}.{result.output}": result for result in found}


def test_every_output_of_every_program_is_compared(runtime: Runtime) -> None:
    found = runtime.check()
    assert {(result.program, result.output) for result in found} == {
        (program.name, port.name) for program in runtime.bundle.programs.values() for port in program.outputs
    }
    assert all(result.ok and result.error < 1e-6 for result in found)


def test_another_program_does_not_pass(own_bundle: Path) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        # The same ports, another seed: every drawn input is another one.
        for program in manifest["programs"].values():
            program["golden"]["seed"] = toy.GOLDEN_SEED + 1

    found = results(toy.edit(own_bundle, swap))
    assert not any(result.ok for result in found.values())


def test_the_tolerance_is_that_of_the_bundle(own_bundle: Path) -> None:
    def strict(manifest: dict[str, Any]) -> None:
        for program in manifest["programs"].values():
            for output in program["golden"]["outputs"].values():
                output["tolerance"] = 1e-12

    found = results(toy.edit(own_bundle, strict))
    assert not found["step.velocity_new"].ok
    assert found["step.velocity_new"].error < 1e-6


@pytest.mark.parametrize(("draws", "error"), [
    ([{"length": 51, "distribution": "constant", "a": float(2**127)}], float("inf")),
    ([{"length": 51, "distribution": "constant"}], None),
])  # fmt: skip
def test_values_that_are_not_finite_never_pass(own_bundle: Path, draws: Any, error: float | None) -> None:
    def change(manifest: dict[str, Any]) -> None:
        inputs = manifest["programs"]["predict"]["golden"]["inputs"]
        inputs["params"] = draws
        inputs["frozen"] = [{"length": 1, "distribution": "constant", "a": 1000.0}]

    result = results(toy.edit(own_bundle, change))["predict.logits"]
    assert not result.ok
    assert error is None or result.error == error


@pytest.mark.parametrize(("draws", "message"), [
    ([{"length": 50, "distribution": "constant", "a": 1.0}], "predict: golden input params has 50 elements"),
    ([{"length": 51, "distribution": "stored"}], "params of program predict is not stored"),
])  # fmt: skip
def test_impossible_golden_inputs_are_named(own_bundle: Path, draws: Any, message: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["programs"]["predict"]["golden"]["inputs"]["params"] = draws

    with pytest.raises(ClueError, match=message):
        results(toy.edit(own_bundle, change))


def test_zero_against_zero_is_no_error() -> None:
    from pi_runtime.golden import _difference

    zero = np.zeros(2, np.float32)
    assert _difference(zero, zero) == 0
    assert _difference(zero + 1, zero) == float("inf")
    assert _difference(zero, np.zeros(3, np.float32)) == float("inf")
    assert _difference(np.array([1.0, 2.0], np.float32), np.array([1.0, 4.0], np.float32)) == 0.5
