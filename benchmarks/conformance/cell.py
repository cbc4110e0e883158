"""One cell of the conformance table, in a process of its own: export a model's `predict` and `step` for one
runtime, run them there, and compare with eager PyTorch.

python benchmarks/conformance/cell.py MODEL RUNTIME full|shallow  prints one JSON line.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zoo

import exporters
from clue_mobile import engines, methods, models, programs
from clue_mobile.bundle import golden
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Program
from clue_mobile.spec import ModelSpec
from exporters.base import Source
from pi_runtime import bundle as bundles
from pi_runtime.engine import Engine

BATCH = 2
CLASSES = 10
PROGRAMS = ("predict", "step")


def prepare(name: str, size: str) -> tuple[FlatModel, int]:
    """The model with random weights and running statistics that fit them; the number of blocks taken out."""
    edge = zoo.side(name, size)
    classes = tuple(str(i) for i in range(CLASSES))
    spec = ModelSpec(name, classes, (3, edge, edge), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    module = models.load(spec, None, seed=0)
    gone = zoo.shallow(module, torch.zeros(1, 3, edge, edge)) if size == "shallow" else 0
    return FlatModel(module, spec), gone


def inputs_for(model: FlatModel, program: Program, scalars: dict[str, float]) -> dict[str, torch.Tensor]:
    """Weights as they are, each channel of each image in a range of its own, what else there is drawn."""
    generator = torch.Generator().manual_seed(1)
    state = model.pack()
    spread = torch.rand(BATCH, 3, 2, 1, 1, generator=generator).sort(2).values
    x = torch.rand(BATCH, *model.spec.input_shape, generator=generator)
    x = spread[:, :, 0] + x * (spread[:, :, 1] - spread[:, :, 0])
    if "buffers" in state:
        state["buffers"] = model.settled(state, x)
    found = {}
    for port in program.inputs:
        if port.role == "state":
            found[port.name] = state[port.name]
        elif port.name == "x":
            found[port.name] = x
        elif port.role == "scalar":
            found[port.name] = torch.tensor(scalars[port.binds or ""])
        elif port.name == "mask":
            found[port.name] = (torch.rand(port.shape, generator=generator) < 0.5).float()
        else:
            width = 2.0 if port.role == "cache" else 0.01
            found[port.name] = width * torch.randn(port.shape, generator=generator)
    return found


def eager(program: Program, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The program's outputs by eager PyTorch."""
    return [result.detach() for result in program.fn(*given.values())]


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """max |got - want| / max |want|."""
    error = float((got - want).abs().max()) / max(float(want.abs().max()), 1e-30)
    return error if math.isfinite(error) else math.inf


def run(name: str, runtime: str, size: str) -> dict[str, Any]:
    """The cell's row. Raises ClueError where the model or runtime refuses."""
    exporter = exporters.get(runtime)
    seconds: dict[str, float] = {}
    memory: dict[str, int] = {}
    clock = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[what] = round(seconds.get(what, 0) + now - clock, 1)
        clock = now
        memory[what] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    model, gone = prepare(name, size)
    config = methods.configure("clue", {})
    recipe = programs.build(model, "clue", config, BATCH)
    chosen = [program for program in recipe.programs if program.name in PROGRAMS]
    lap("model")
    traced = [
        programs.trace(program, overrides=exporter.OVERRIDES, passes=exporter.PASSES) for program in chosen
    ]
    lap("trace")
    converted = exporter.convert(traced, Source(model, recipe), lambda _: None)
    lap("convert")
    errors: dict[str, float] = {}
    tolerances: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path, data in converted.files.items():
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        for each in traced:
            program = each.program
            given = inputs_for(model, program, dict(recipe.scalars))
            want = eager(program, given)
            sensitive = [0.0] * len(want)
            for twin in range(2):
                sign = torch.rand(given["params"].shape, generator=torch.Generator().manual_seed(twin)) - 0.5
                shaken = given["params"] * sign.sign_().mul_(1e-6).add_(1)
                others = eager(program, {**given, "params": shaken})
                sensitive = [
                    max(s, difference(o, w)) for s, o, w in zip(sensitive, others, want, strict=True)
                ]
                del sign, shaken, others  # a large model's vectors are large too
            lap("eager")
            got = execute(runtime, Path(folder) / converted.programs[program.name], program, given)
            lap("run")
            pairs = [difference(g, w) for g, w in zip(got, want, strict=True)]
            if any(e > max(golden.TOLERANCE, 5 * s) for e, s in zip(pairs, sensitive, strict=True)):
                exact = eager(program, {name: tensor.double() for name, tensor in given.items()})
                rounding = [difference(w.double(), x) for w, x in zip(want, exact, strict=True)]
                sensitive = [max(pair) for pair in zip(sensitive, rounding, strict=True)]
            for port, e, s in zip(program.outputs, pairs, sensitive, strict=True):
                errors[f"{program.name}.{port.name}"] = e
                tolerances[f"{program.name}.{port.name}"] = max(golden.TOLERANCE, 5 * s)
    worst = max(errors, key=lambda key: errors[key] / tolerances[key])
    return {
        "status": "ok" if errors[worst] <= tolerances[worst] else "differs",
        "worst": worst,
        "error": errors[worst],
        "tolerance": tolerances[worst],
        "parameters": model.sizes["params"],
        "side": model.spec.input_shape[1],
        "blocks_removed": gone,
        "nodes": {each.program.name: len(each.graph.graph.nodes) for each in traced},
        "seconds": seconds,
        "peak_mib_after": memory,
        "reports": {key: dict(value) for key, value in converted.reports.items()},
    }


def engine(runtime: str) -> Engine:
    """The runtime's own engine; for Core ML the evaluator of the tests."""
    if runtime != "coreml":
        return engines.get(runtime, 1)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "exporters"))
    from mil_engine import MilEngine

    return MilEngine()


def execute(runtime: str, path: Path, program: Program, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The program's outputs by the runtime's engine."""
    arrays = {name: t.contiguous().numpy() for name, t in given.items()}
    ports = [
        tuple(bundles.Port(p.name, p.role, p.shape, p.binds or "") for p in side)
        for side in (program.inputs, program.outputs)
    ]
    empty = bundles.Golden("", 0, {}, {}, {})
    described = bundles.Program(program.name, program.batch, ports[0], ports[1], 0, 0, {}, empty)
    outputs = {port.name: np.zeros(port.shape, np.float32) for port in program.outputs}
    engine(runtime).load(path, described).run(arrays, outputs)
    return [torch.from_numpy(outputs[port.name]) for port in program.outputs]


def answer(name: str, runtime: str, size: str) -> str:
    """The cell's row as a line of JSON, a refusal too."""
    torch.set_num_threads(1)
    try:
        row = run(name, runtime, size)
    except ClueError as error:
        row = {"status": "refused", "reason": str(error)}
    return json.dumps(row)


if __name__ == "__main__":
    print("\n" + answer(*sys.argv[1:4]))
