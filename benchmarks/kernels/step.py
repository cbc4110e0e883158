"""The CLUE step of a model with each convolution in its exporter's own form and in the chosen form, beside
eager PyTorch, in turns in one process.

    python benchmarks/kernels/step.py resnet20 --batch 32 --runtime onnx --costs costs.json
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import exporters
from clue_mobile import engines, methods, models, programs
from clue_mobile.flat import FlatModel
from clue_mobile.kernel_costs import table
from clue_mobile.lowering import choice
from exporters.base import Source
from pi_runtime.bundle import Golden, Port, Program
from pi_runtime.kernel_costs import machine


def eager_step(module: torch.nn.Module, spec: Any, inputs: dict[str, np.ndarray]) -> Callable[[], None]:
    """The same step in PyTorch: energy, divergence, momentum, learning rate."""
    module = copy.deepcopy(module).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    x, teacher = torch.from_numpy(inputs["x"]), torch.from_numpy(inputs["teacher"])

    def step() -> None:
        z = module((x - mean) / std)
        temperature = z.norm(dim=1, keepdim=True).clamp(min=1e-12)
        divergence = F.kl_div(
            F.log_softmax(teacher, 1), F.log_softmax(z, 1), log_target=True, reduction="batchmean"
        )
        loss = torch.exp(z / temperature).sum(1).mean() + divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Print and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--costs", type=Path, help="default: the costs that come with the toolkit")
    parser.add_argument("--input-shape", help="of a model that does not say it, such as 3,224,224")
    parser.add_argument("--only-chosen", action="store_true", help="leave the exporter's own forms out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    card = {}
    if options.input_shape:
        each = ",".join(["0.5"] * int(options.input_shape.partition(",")[0]))
        names = ",".join(f"class{number}" for number in range(10))
        card = {"input_shape": options.input_shape, "classes": names, "mean": each, "std": each}
    spec = models.resolve_spec(options.model, **card)
    module = models.load(spec, None, seed=0)
    model = FlatModel(module, spec)
    recipe = programs.build(model, "clue", methods.configure("clue", {}), options.batch)
    (step,) = (program for program in recipe.programs if program.name == "step")
    exporter = exporters.get(options.runtime)
    engine = engines.get(options.runtime, options.threads)
    choose = table.choosers([options.runtime], "host", options.costs)[options.runtime]
    assert choose is not None, "no costs for this runtime"
    forms = {"own": exporter.OVERRIDES, "chosen": choice.overrides(choose, exporter.OVERRIDES)}
    if options.only_chosen:
        del forms["own"]
    rng = np.random.default_rng(0)
    packed = {key: vector.numpy() for key, vector in model.pack().items()}
    runs: dict[str, Callable[[], None]] = {}
    peaks, reference = {}, None
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in forms.items():
            traced = programs.trace(step, overrides=overrides)
            peaks[name] = traced.peak_bytes
            converted = exporter.convert([traced], Source(model, recipe), lambda text: None)
            for file, content in converted.files.items():
                (Path(folder) / f"{name}-{file}").write_bytes(content)
            ports = [
                tuple(Port(p.name, p.role, p.shape, "") for p in side) for side in (step.inputs, step.outputs)
            ]
            program = Program("step", options.batch, *ports, traced.flops, 0, {}, Golden("", 0, {}, {}, {}))
            session = engine.load(Path(folder) / f"{name}-{converted.programs['step']}", program)
            inputs = {
                p.name: packed[p.name] if p.name in packed
                else np.zeros(p.shape, np.float32) if p.name == "momentum"
                else np.full(p.shape, 1e-4 if p.role == "scalar" else 1.0, np.float32) if p.role != "batch"
                else rng.random(p.shape, dtype=np.float32)
                for p in step.inputs
            }  # fmt: skip
            if reference is not None:
                inputs = reference[0]
            outputs = {p.name: np.zeros(p.shape, np.float32) for p in step.outputs}
            session.run(inputs, outputs)
            if reference is None:
                reference = inputs, outputs
            else:
                worst = max(
                    float(np.abs(outputs[k] - v).max() / max(np.abs(v).max(), 1e-9))
                    for k, v in reference[1].items()
                )
                print(f"{name}: largest difference from own, of an output's scale: {worst:.1e}")
            runs[name] = lambda s=session, i=inputs, o=outputs: s.run(i, o)
        teacher = next(p.name for p in step.inputs if p.name.startswith("teacher"))
        runs = {
            "eager": eager_step(module, spec, {"x": reference[0]["x"], "teacher": reference[0][teacher]}),
            **runs,
        }
        wall: dict[str, list[float]] = {name: [] for name in runs}
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(options.rounds + 2):
            for name, run in runs.items():
                start, used = time.perf_counter(), time.process_time()
                run()
                if turn >= 2:
                    cpu[name].append(time.process_time() - used)
                    wall[name].append(time.perf_counter() - start)
    result = {
        "model": options.model, "batch": options.batch, "runtime": options.runtime, "version": engine.version,
        "torch": torch.__version__, "threads": options.threads, "machine": machine(),
        "rounds": options.rounds, "gflop": round(traced.flops / 1e9, 3),
        "cpu_ms": {n: round(1000 * statistics.median(t), 2) for n, t in cpu.items()},
        "wall_ms": {n: round(1000 * statistics.median(t), 2) for n, t in wall.items()},
        "cpu_ratio_to_eager": {
            n: round(statistics.median(a / b for a, b in zip(t, cpu["eager"], strict=True)), 3)
            for n, t in cpu.items()
        },
        "wall_ratio_to_eager": {
            n: round(statistics.median(a / b for a, b in zip(t, wall["eager"], strict=True)), 3)
            for n, t in wall.items()
        },
        "planned_peak_mib": {n: round(p / 2**20, 1) for n, p in peaks.items()},
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
