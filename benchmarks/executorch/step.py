"""Time one training step of CLUE in ExecuTorch against portable kernels, ONNX Runtime and eager PyTorch.

All take turns in one process with one thread, so that what else the machine does meets all of them; rounds
are A B C D A B C D. Both clocks are shown: `cpu` is the time of the thread itself, which a shared machine
disturbs less. Writes step.json and step.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import exporters
from clue_mobile import engines, methods, models, programs
from clue_mobile.bundle import golden
from clue_mobile.flat import FlatModel
from exporters import executorch_pieces as pieces
from exporters.base import Source
from exporters.executorch_program import assemble
from pi_runtime.bundle import Golden
from pi_runtime.bundle import Port as DevicePort
from pi_runtime.bundle import Program as DeviceProgram

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="resnet20")
parser.add_argument("--weights", type=Path)
parser.add_argument("--program", default="step")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

torch.set_num_threads(1)
spec = models.resolve_spec(options.model, weights=options.weights)
module = models.load(spec, options.weights, **({} if options.weights else {"seed": 0}))
model = FlatModel(module, spec)
config = methods.configure("clue", {"saliency_batch": 8 * options.batch})
recipe = programs.build(model, "clue", config, options.batch)
program = next(p for p in recipe.programs if p.name == options.program)
inputs, _ = golden._inputs(model, recipe, program, golden.FIRST_SEED)
arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
expected = [tensor.detach().numpy() for tensor in program.fn(*inputs.values())]
files = Path(tempfile.mkdtemp())


def device_program() -> DeviceProgram:
    """The program as an engine sees it."""
    ports = [
        tuple(DevicePort(p.name, p.role, tuple(p.shape), p.name) for p in side)
        for side in (program.inputs, program.outputs)
    ]
    return DeviceProgram(program.name, program.batch, *ports, 0, 0, {}, Golden("", 0, 1.0, {}, {}))


def session(
    runtime: str, name: str, data: bytes
) -> tuple[Callable[[], Any], dict[str, np.ndarray[Any, Any]]]:
    """A function that runs the program once, and where its results go."""
    path = files / name
    path.write_bytes(data)
    loaded = engines.get(runtime, 1).load(path, device_program())
    outputs = {port.name: np.zeros(port.shape, np.float32) for port in program.outputs}
    return lambda: loaded.run(arrays, outputs), outputs


contenders: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {}
made: dict[str, dict[str, Any]] = {}


def add(name: str, runtime: str, make: Callable[[], tuple[bytes, dict[str, Any]]]) -> None:
    """Make a contender's file, load it and run it once to compare its results with eager PyTorch's."""
    if name in options.without:
        return
    started, cpu = time.perf_counter(), time.process_time()
    data, facts = make()
    facts |= {"export_s": time.perf_counter() - started, "export_cpu_s": time.process_time() - cpu}
    run, outputs = session(runtime, f"{name.replace(' ', '_')}.bin", data)
    run()
    facts["largest_error"] = max(
        float(np.abs(outputs[port.name] - want).max() / max(float(np.abs(want).max()), 1e-30))
        for port, want in zip(program.outputs, expected, strict=True)
    )
    contenders[name], made[name] = (run, outputs), {**facts, "bytes": len(data)}
    print(name, {k: v for k, v in made[name].items() if k != "report"}, flush=True)


def delegated() -> tuple[bytes, dict[str, Any]]:
    """What the exporter writes."""
    exporter = exporters.get("executorch")
    traced = programs.trace(program, overrides=exporter.OVERRIDES)
    converted = exporter.convert([traced], Source(model, recipe), lambda name: None)
    (data,) = converted.files.values()
    return data, {"nodes": len(traced.graph.graph.nodes), "report": converted.reports[program.name]}


def portable(overrides: Any) -> tuple[bytes, dict[str, Any]]:
    """A traced step with no piece for the delegate."""
    traced = programs.trace(program, overrides=overrides)
    nodes: pieces.Nodes = dict.fromkeys(traced.graph.graph.nodes)
    file = assemble({program.name: (traced.graph, [({}, nodes)])})
    return file.buffer, {"nodes": len(nodes)}


def onnx() -> tuple[bytes, dict[str, Any]]:
    """The ONNX exporter's."""
    exporter = exporters.get("onnx")
    traced = programs.trace(program, overrides=exporter.OVERRIDES)
    converted = exporter.convert([traced], Source(model, recipe), lambda name: None)
    (data,) = converted.files.values()
    return data, {"nodes": len(traced.graph.graph.nodes)}


add("executorch, xnnpack", "executorch", delegated)
add("onnxruntime", "onnx", onnx)
add("executorch, kernels, same trace", "executorch", lambda: portable(exporters.get("executorch").OVERRIDES))
add("executorch, kernels, convolutions kept", "executorch", lambda: portable(None))
contenders["eager PyTorch"] = (lambda: program.fn(*inputs.values()), {})

times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in contenders}
for number in range(options.rounds):
    for name, (run, _) in contenders.items():
        wall, cpu = time.perf_counter(), time.thread_time()
        run()
        times[name]["cpu"].append(time.thread_time() - cpu)
        times[name]["wall"].append(time.perf_counter() - wall)
    print(number, {n: [round(t[k][-1], 3) for k in ("wall", "cpu")] for n, t in times.items()}, flush=True)

ours = "executorch, xnnpack"
rows = []
for name, taken in times.items():
    ratio = {
        clock: statistics.median(a / b for a, b in zip(taken[clock], times[ours][clock], strict=True))
        for clock in ("wall", "cpu")
    }
    rows.append(
        {
            "name": name,
            **{f"{clock}_ms": 1e3 * statistics.median(taken[clock]) for clock in ("wall", "cpu")},
            **{f"{clock}_ratio": ratio[clock] for clock in ratio},
            **made.get(name, {}),
        }
    )
facts = {
    "model": options.model,
    "program": options.program,
    "batch": options.batch,
    "threads": 1,
    "rounds": options.rounds,
    "machine": platform.machine(),
    "versions": {
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        **exporters.get("executorch").versions(),
    },
}
stem = options.out / f"{options.model}_{options.program}"
stem.with_suffix(".json").write_text(json.dumps({**facts, "rows": rows, "times_s": times}, indent=1) + "\n")
lines = [
    f"# {options.model}, `{options.program}`, batch {options.batch}, 1 thread",
    "",
    f"{facts['machine']}, {facts['versions']}, medians of {options.rounds} rounds in turns; ratio = median "
    f"over rounds of this / `{ours}`.",
    "",
    "| | wall ms | cpu ms | ratio, wall | ratio, cpu | error / scale | nodes | bytes | export, cpu s |",
    "|---|---|---|---|---|---|---|---|---|",
]
for row in rows:
    lines.append(
        f"| {row['name']} | {row['wall_ms']:.0f} | {row['cpu_ms']:.0f} | {row['wall_ratio']:.2f} | "
        f"{row['cpu_ratio']:.2f} | "
        + (
            f"{row['largest_error']:.1e} | {row['nodes']} | {row['bytes']} | {row['export_cpu_s']:.0f} |"
            if "nodes" in row
            else " | | | |"
        )
    )
lines += ["", f"`{ours}`: {made[ours].get('report')}", ""]
stem.with_suffix(".md").write_text("\n".join(lines))
print("\n".join(lines))
