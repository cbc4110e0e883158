"""Runs every program on seeded inputs and compares with what eager PyTorch gave (contract/golden.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pi_runtime import draw
from pi_runtime.bundle import Bundle, Port, Program
from pi_runtime.engine import Array, Engine
from pi_runtime.request import load
from pi_runtime.weights import WeightsFile


@dataclass(frozen=True)
class GoldenResult:
    """`error`: largest difference over largest expected value; `ok`: it is at most `tolerance`."""

    program: str
    output: str
    error: float
    tolerance: float
    ok: bool


def check(bundle: Bundle, engine: Engine) -> list[GoldenResult]:
    """One result for each output of each program that the engine has a file for.

    Raises ClueError for an unusable program or golden file, or where the engine has no program at all.
    """
    results = []
    programs = [each for each in bundle.programs.values() if engine.name in each.files]
    for program in programs or bundle.programs.values():
        stored = WeightsFile(bundle.file(program.golden.file))
        inputs = golden_inputs(bundle, program, stored)
        outputs = {port.name: np.zeros(port.shape, np.float32) for port in program.outputs}
        load(bundle, engine, program.name).run(inputs, outputs)
        for name, stride in program.golden.strides.items():
            if name not in stored:
                bundle.fail(f"{program.golden.file} has no output {name}")
            error = _difference(outputs[name].reshape(-1)[::stride], stored[name].reshape(-1))
            tolerance = program.golden.tolerances[name]
            results.append(GoldenResult(program.name, name, error, tolerance, error <= tolerance))
    return results


def golden_inputs(bundle: Bundle, program: Program, stored: Mapping[str, Array]) -> dict[str, Array]:
    """The golden inputs of a program by port; `stored` are the arrays of its golden file."""
    return {
        port.name: _input(bundle, program, number, port, stored) for number, port in enumerate(program.inputs)
    }


def _input(bundle: Bundle, program: Program, number: int, port: Port, stored: Mapping[str, Array]) -> Array:
    where = f"golden input {port.name} of program {program.name}"
    parts = []
    for index, how in enumerate(program.golden.inputs[port.name]):
        if how["distribution"] == "stored":
            if f"input.{port.name}" not in stored:
                bundle.fail(f"{where} is not stored")
            parts.append(stored[f"input.{port.name}"].reshape(-1))
        else:
            parts.append(draw.golden(how, program.golden.seed, number, index))
    flat = np.concatenate(parts)
    if flat.size != np.prod(port.shape):
        bundle.fail(f"{where} has {flat.size} elements")
    return flat.reshape(port.shape)


def _difference(device: Array, golden: Array) -> float:
    if device.shape != golden.shape or not np.isfinite([device, golden]).all():
        return float("inf")
    difference = float(np.max(np.abs(device.astype(np.float64) - golden), initial=0.0))
    scale = float(np.max(np.abs(golden), initial=0.0))
    return difference / scale if scale else (float("inf") if difference else 0.0)
