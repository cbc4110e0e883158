"""The training step on LiteRT, ONNX Runtime and eager PyTorch: one thread, taking turns, in one process.

python benchmarks/litert/step.py --model resnet20 --batch 32 --rounds 15 > benchmarks/litert/resnet20.md
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor

from clue_mobile import methods, models, programs
from clue_mobile.flat import FlatModel
from exporters import litert, onnx

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="resnet20")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--rounds", type=int, default=15)
options = parser.parse_args()
torch.set_num_threads(1)

spec = models.resolve_spec(options.model)
model = FlatModel(models.load(spec, None, seed=0), spec)
recipe = programs.build(model, "clue", methods.configure("clue", {}), options.batch)


def seconds(fn: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    fn()
    return time.perf_counter() - wall, time.process_time() - cpu


def example(program: programs.Program) -> list[Tensor]:
    """The model's own state, no momentum, half the mask, random images."""
    state, made = model.pack(), []
    for number, port in enumerate(program.inputs):
        value = torch.rand(port.shape, generator=torch.Generator().manual_seed(number))
        value = {"mask": (value > 0.5).float(), "momentum": 0 * value, "lr": torch.tensor(1e-3)}.get(
            port.name, value
        )
        made.append(state.get(port.name, value).clone())
    return made


traced = programs.trace_all(recipe.programs, overrides=litert.OVERRIDES, passes=litert.PASSES)
files: dict[str, bytes] = {}
wall, cpu = seconds(
    lambda: files.update(litert.convert(traced, None, lambda name: None).files)  # type: ignore[arg-type]
)
data = files[litert.FILE]
step = next(p for p in recipe.programs if p.name == "step")
inputs = example(step)
feed = {port.name: value.numpy() for port, value in zip(step.inputs, inputs, strict=True)}

import onnxruntime  # noqa: E402

session_options = onnxruntime.SessionOptions()
session_options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    onnx.convert_program(programs.trace(step, overrides=onnx.OVERRIDES, passes=onnx.PASSES))["model.onnx"],
    session_options,
    providers=["CPUExecutionProvider"],
)
interpreter = Interpreter(model_content=data, num_threads=1)
interpreter.allocate_tensors()
runner = interpreter.get_signature_runner("step")
systems: dict[str, Callable[[], object]] = {
    "eager PyTorch": lambda: step.fn(*inputs),
    "ONNX Runtime": lambda: session.run(None, feed),
    "LiteRT": lambda: runner(**feed),
}
double = programs.trace(step, dtype=torch.float64)(*(value.double() for value in inputs))
exact = {port.name: value.detach().numpy() for port, value in zip(step.outputs, double, strict=True)}
found = {
    "eager PyTorch": {
        p.name: v.detach().numpy() for p, v in zip(step.outputs, step.fn(*inputs), strict=True)
    },
    "ONNX Runtime": dict(zip([p.name for p in step.outputs], session.run(None, feed), strict=True)),
    "LiteRT": runner(**feed),
}
times: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
for _ in range(options.rounds):
    for name, fn in systems.items():
        times[name].append(seconds(fn))

print(f"# The step of {options.model}, batch {options.batch}, one thread\n")
print(
    f"`python benchmarks/litert/step.py --model {options.model} --batch {options.batch} --rounds "
    f"{options.rounds}`: medians of rounds in which the systems take turns; the ratio is the median of the "
    "rounds' ratios of processor time. Error: largest difference from the same step in double, over the "
    "output's scale.\n"
)
print("| system | wall ms | processor ms | ratio | " + " | ".join(p.name for p in step.outputs) + " |")
print("|---|" + "---|" * (3 + len(step.outputs)))
eager = np.array([cpu for _, cpu in times["eager PyTorch"]])
for name, rounds in times.items():
    walls, cpus = (np.array(column) for column in zip(*rounds, strict=True))
    errors = [np.abs(found[name][key] - exact[key]).max() / np.abs(exact[key]).max() for key in exact]
    print(
        f"| {name} | {np.median(walls) * 1e3:.0f} | {np.median(cpus) * 1e3:.0f} | "
        f"{np.median(cpus / eager):.2f} | " + " | ".join(f"{error:.1e}" for error in errors) + " |"
    )
nodes = sum(len(t.graph.graph.nodes) for t in traced)
print(
    f"\nAll {len(traced)} programs ({nodes} traced nodes) became one file of {len(data) / 1024:.0f} KiB in "
    f"{wall:.1f} s ({cpu:.1f} s of processor time)."
)
