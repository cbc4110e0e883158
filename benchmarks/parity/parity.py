"""Print the parity tables of docs/parity.md: one runtime step against one eager step, and free-running drift.

Digits train for a few epochs first; another model needs --weights and --data. All runs use one thread, but
for those that say otherwise.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from clue_mobile import data, methods, models, parity, programs, training
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.gates import GateReader, gated
from clue_mobile.parity import compare, worst
from pi_runtime.bundle import Bundle
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.plan import Run

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="digits_cnn")
parser.add_argument("--weights", type=Path)
parser.add_argument("--data", default="digits")
parser.add_argument("--label", type=int, default=3)
parser.add_argument("--images", type=int, default=256)
parser.add_argument("--steps", type=int, nargs="+", default=[1, 10, 100])
parser.add_argument("--seed", type=int, default=5)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--saliency-batch", type=int, default=256)
parser.add_argument("--tau", type=float, default=3e-3)
parser.add_argument("--augment", default="none")
parser.add_argument("--shaken", type=int, default=1, help="eager runs from weights shaken by one rounding")
options = parser.parse_args()

torch.set_num_threads(1)
spec = models.resolve_spec(options.model, weights=options.weights)
dataset = data.load(options.data, input_shape=spec.input_shape, classes=spec.classes)
images = dataset.train.of_class(options.label).images[: options.images]
labels = np.full(len(images), options.label, np.int64)
module = models.load(spec, options.weights)
if options.weights is None:
    config = training.TrainConfig(epochs=5, batch=64, augment="none", precision="float32")
    training.train(module, spec, dataset.train.images, dataset.train.labels, config)
given = {
    "epochs": -(-max(options.steps) // -(-len(images) // options.batch)),
    "saliency_batch": options.saliency_batch,
    "tau": options.tau,
    "augment": options.augment,
}
config = methods.configure("clue", given)


def record(source=module, threads=1, steps=options.steps):
    torch.set_num_threads(threads)
    try:
        return parity.record(
            source, spec, "clue", config, images, labels, seed=options.seed, batch=options.batch, steps=steps
        )
    finally:
        torch.set_num_threads(1)


folder = Path(tempfile.mkdtemp())
recipe = ExportRecipe(target="host", hyperparameters=given, batch=options.batch)
bundle = Bundle.open(export(module, spec, folder / "parity.clue", recipe))
traced = {p.name: p for p in programs.build(FlatModel(module, spec), "clue", config, options.batch).programs}
readers = {name: GateReader(bundle, name) for name in ("step", "saliency")}
replay = parity.Replay(bundle, OnnxEngine(1), images, labels, options.seed)
steps_an_epoch = -(-len(images) // options.batch)
starts = sorted({(number - 1) // steps_an_epoch * steps_an_epoch + 1 for number in options.steps})
found = {step.number: step for step in record(steps=sorted({*options.steps, *starts}))}

print(f"# {options.model}, {len(images)} images of class {spec.classes[options.label]!r}\n")
print(
    f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {platform.machine()}, "
    f"batch {options.batch}, {steps_an_epoch} steps an epoch, seed {options.seed}, {given}\n"
)


def row(*cells):
    print("|", " | ".join(str(cell) for cell in cells), "|")


def head(*cells):
    row(*cells)
    row(*["---"] * len(cells))


def largest(errors, prefix):
    return f"{worst(e for e in errors if e.name.startswith(prefix)).error:.1e}"


KINDS = ("params", "buffers", "momentum")
print("## One step from eager's values\n")
head(
    "step",
    "values",
    "runtime - eager",
    "runtime - eager64, same ReLUs",
    "eager - eager64, same ReLUs",
    "ReLUs that differ",
    "of",
    "nearest to zero within",
)
plain, exact = {}, {}
for number in options.steps:
    step = found[number]
    plain[number] = parity.teacher_forced(replay, step)
    replay.set(parity.forced_values(replay, step))
    exact[number] = gated(replay, readers["step"], traced["step"], replay.step(number)[1])
    one = exact[number]
    for kind in KINDS:
        row(
            number,
            kind,
            largest(plain[number], kind),
            largest(one.runtime, kind),
            largest(one.eager, kind),
            one.flipped,
            one.total,
            f"{one.distance:.1e}",
        )
    row(number, "energy, kl", largest(plain[number], "metric"), "", "", "", "", "")

print("\n## The passes before an epoch's first step, from eager's weights\n")
head(
    "step",
    "mask density",
    "mask elements that differ",
    "largest |R/tau - 1| of them",
    "teacher logits",
    "gradient sum, runtime - eager",
    "one run: runtime - eager64, same ReLUs",
    "eager - eager64",
    "ReLUs that differ, all runs",
)
for number in starts:
    step = found[number]
    start = parity.epoch_start(replay, step, config.saliency_batch)
    others, _ = replay.step(number)
    replay.set({name: step.before[name] for name in ("params", "buffers") if name in step.before})
    runs = [
        gated(replay, readers["saliency"], traced["saliency"], operation)
        for operation in others
        if isinstance(operation, Run) and operation.node.program == "saliency"
    ]
    row(
        number,
        f"{start.density:.4f}",
        start.differing,
        f"{start.distance:.1e}",
        f"{start.teacher.error:.1e}",
        f"{worst(start.sums).error:.1e}",
        f"{max(worst(one.runtime).error for one in runs):.1e}",
        f"{max(worst(one.eager).error for one in runs):.1e}",
        sum(one.flipped for one in runs),
    )

print("\n## Drift of whole runs from eager with 1 thread\n")
runs = {"eager, 2 threads": {s.number: parity.after(replay, s) for s in record(threads=2)}}
for seed in range(options.shaken):
    shaken = record(parity.shaken(module, seed))
    runs[f"eager, weights shaken by one rounding ({seed})"] = {
        s.number: parity.after(replay, s) for s in shaken
    }
for threads in (1, 2):
    other = parity.Replay(bundle, OnnxEngine(threads), images, labels, options.seed)
    runs[f"runtime, {threads} thread{'s' * (threads > 1)}"] = parity.free_running(other, options.steps)
head("run", "step", *KINDS)
for name, tensors in runs.items():
    for number in options.steps:
        errors = compare(tensors[number], parity.after(replay, found[number]))
        row(name, number, *(largest(errors, kind) for kind in KINDS))

print(
    "\n## Every tensor, one step: runtime - eager / runtime - eager64 with the same ReLUs / eager - eager64\n"
)
head("tensor", *(f"step {number}" for number in options.steps))
for place, each in enumerate(exact[options.steps[0]].runtime):
    cells = []
    for number in options.steps:
        first = {e.name: e for e in plain[number]}[each.name].error
        second, third = (errors[place].error for errors in (exact[number].runtime, exact[number].eager))
        cells.append(f"{first:.0e} / {second:.0e} / {third:.0e}")
    row(each.name, *cells)
