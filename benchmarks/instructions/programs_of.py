"""The program files that count.py counts: a model's step made here, or a file that is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGINES = {"onnx": "pi_runtime.onnx_engine:OnnxEngine", "litert": "pi_runtime.litert_engine:LitertEngine"}


@dataclass(frozen=True)
class Target:
    """A program file, what runs it, its ports (see run_steps.py) and what is known of it."""

    engine: str
    file: Path
    ports: Path
    facts: dict[str, Any]


def step(
    model: str, batch: int, runtime: str, folder: Path, *, plain: bool = False, without: Sequence[str] = ()
) -> Target:
    """CLUE's step of a built-in model on a runtime, exported into `folder` as `export --target pi5` does.

    plain: one form for all products, none of the runtime's own forms, no passes. without: passes left out.
    """
    import importlib

    from clue_mobile import methods, models, programs
    from clue_mobile.flat import FlatModel
    from clue_mobile.kernel_costs import table

    exporter = importlib.import_module(f"exporters.{runtime}")
    if unknown := sorted(set(without) - set(exporter.PASSES)):
        raise SystemExit(f"--without {unknown[0]}: no pass of {runtime}: {', '.join(exporter.PASSES)}")
    spec = models.resolve_spec(model)
    flat = FlatModel(models.load(spec, None, seed=0), spec)
    recipe = programs.build(flat, "clue", methods.configure("clue", {}), batch)
    program = next(each for each in recipe.programs if each.name == "step")
    if plain:
        traced = programs.trace(program, passes=())
    else:
        overrides = table.shipped_overrides(runtime, "pi5", exporter.OVERRIDES)
        passes = [name for name in exporter.PASSES if name not in without]
        traced = programs.trace(program, overrides=overrides, passes=passes)
    converted = exporter.convert([traced], None, lambda name: None)
    for name, content in converted.files.items():
        (folder / name).write_bytes(content)
    ports = {
        "name": program.name,
        "inputs": {port.name: list(port.shape) for port in program.inputs},
        "outputs": {port.name: list(port.shape) for port in program.outputs},
    }
    described = folder / "ports.json"
    described.write_text(json.dumps(ports))
    facts = {"model": model, "batch": batch, "runtime": runtime, "flops": traced.flops}
    facts |= {"variant": "plain" if plain else ", ".join(f"without {name}" for name in without)}
    return Target(ENGINES[runtime], folder / converted.programs["step"], described, facts)


def given(file: Path, engine: str, folder: Path) -> Target:
    """Any ONNX program of float32 ports with fixed shapes; the file itself is what will be run."""
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    constants = {each.name for each in graph.initializer}
    ports = {
        "name": file.stem,
        "inputs": {v.name: _shape(v) for v in graph.input if v.name not in constants},
        "outputs": {v.name: _shape(v) for v in graph.output},
    }
    described = folder / "ports.json"
    described.write_text(json.dumps(ports))
    return Target(engine, file, described, {"program": file.name, "runtime": engine})


def _shape(value: Any) -> list[int]:
    kind = value.type.tensor_type
    if kind.elem_type != 1 or any(not d.HasField("dim_value") for d in kind.shape.dim):
        raise SystemExit(f"{value.name} is not float32 with a fixed shape")
    return [d.dim_value for d in kind.shape.dim]
