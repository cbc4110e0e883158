"""What each way of doing less work saves of a CLUE request, and what it costs in UA, RA and TA.

    python benchmarks/less_work/less_work.py --data cifar10_images.zip --weights resnet20_cifar10.safetensors
        --bundles bundles --out benchmarks/less_work/results.jsonl

ResNet-20 forgets airplane: 512 forget images, 450 training and 450 test images of the other classes,
drawn with seed 0 and the same for every row. Every row is one request on ONNX Runtime, one thread, batch 32,
by the runtime's own Runner; seconds are processor seconds, of the plan alone. Rows that are in the file
already are left out, so a run that was cut goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clue_mobile import data, methods, models, programs
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Program
from exporters import onnx
from pi_runtime import plan, weights
from pi_runtime.bundle import Bundle, FileEntry
from pi_runtime.cost import Meter
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.request import Job, Runner

TUNED = {
    "lr": 1e-4, "tau": 1e-3, "kl_weight": 5, "batch_norm": "frozen", "augment": "crop_flip", "epochs": 1,
    "stop_every": 1, "stop_accuracy": 15,
}  # fmt: skip
GENTLE = {"lr": 5e-6, "epochs": 2, "stop_every": 0}


@dataclass(frozen=True)
class Row:
    """changed: hyperparameters beside TUNED that change the plan and no program; scalars: what the request
    changes. float16: programs that are traced in float16; eager: PyTorch runs these, which rounds each
    operator's result, where ONNX Runtime on a processor without float16 leaves out what it can."""

    name: str
    changed: dict[str, Any] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    train_only: tuple[str, ...] = ()
    float16: tuple[str, ...] = ()
    eager: bool = False
    count: int = 512


DEEP = ("layer3.*", "fc.*")
UPPER = ("layer2.*", "layer3.*", "fc.*")
ROWS = [
    Row("whole epoch, no stop", scalars={"stop_every": 0}),
    Row("stop after any step"),
    Row("stop after every second step", scalars={"stop_every": 2}),
    Row("stop after any step, on 64 images", {"stop_samples": 64}),
    Row("refresh 256, stop after any step", {"refresh": 256}),
    Row("refresh 256, stop after any step, on 64 images", {"refresh": 256, "stop_samples": 64}),
    Row("two epochs", scalars=GENTLE),
    Row("two epochs, mask once", {"mask_per": "request"}, scalars=GENTLE),
    Row("two epochs, refresh 256", {"refresh": 256}, scalars=GENTLE),
    Row("train only layer2, layer3, fc", train_only=UPPER),
    Row("train only layer3, fc", train_only=DEEP),
    Row("train only fc", train_only=("fc.*",)),
    Row("stop after any step, teacher in float16", float16=("teacher",)),
    Row("stop after any step, teacher and step in float16", float16=("teacher", "step")),
    Row(
        "stop after any step, teacher and step in float16, by eager PyTorch",
        float16=("teacher", "step"),
        eager=True,
    ),
    Row("4,500 images, stop after any step", count=4500),
    Row(
        "4,500 images, refresh 256, stop after any step, on 64 images",
        {"refresh": 256, "stop_samples": 64},
        count=4500,
    ),
    Row(
        "4,500 images, train only layer3, fc, refresh 256, stop after any step, on 64 images",
        {"refresh": 256, "stop_samples": 64},
        train_only=DEEP,
        count=4500,
    ),
]


class Subsets:
    """The fixed images of all rows: the forget set, of which the first `count` are a request's, and what is
    measured."""

    def __init__(self, source: str, spec: Any, forget: int = 0, count: int = 512, each: int = 50) -> None:
        found = data.load(
            source, input_shape=spec.input_shape, classes=spec.classes, validation_per_class=500
        )
        rng = np.random.default_rng(0)

        def drawn(split: Any, label: int) -> Any:
            return rng.permutation(np.flatnonzero(split.labels == label))

        order = drawn(found.train, forget)
        # the request's images in their stored order, as a device has them
        order = np.concatenate([np.sort(order[:count]), np.sort(order[count:])])
        self.images, self.labels = found.train.images[order], found.train.labels[order].astype(np.int64)
        self.measured = {"UA": (self.images[:count], self.labels[:count])}
        for name, split in (("RA", found.train), ("TA", found.test)):
            rows = np.concatenate(
                [np.sort(drawn(split, label)[:each]) for label in range(len(spec.classes)) if label != forget]
            )
            self.measured[name] = (split.images[rows], split.labels[rows])


def exported(row: Row, weights_file: Path, folder: Path) -> Bundle:
    """The bundle of a row, for ONNX Runtime: its programs, exported once, and its own plan."""
    spec = models.resolve_spec("resnet20")
    module = models.load(spec, weights_file)
    name = "all"
    if row.train_only:
        models.train_only(module, row.train_only)
        name = re.sub(r"\W+", "_", " ".join(row.train_only))
    out = folder / f"{name}.clue"
    if not out.exists():
        recipe = ExportRecipe("host", "clue", TUNED, 32, runtimes=("onnx",), kept_at_least=0, name=name)
        export(module, spec, out, recipe)
    bundle = Bundle.open(out)
    config = methods.configure("clue", {**TUNED, **row.changed})
    made = programs.build(FlatModel(module, spec), "clue", config, bundle.batch, halved=row.float16)
    bundle = dataclasses.replace(bundle, plan=plan.parse(made.plan))
    for program in made.programs:
        if program.name in row.float16 and not row.eager:
            bundle = replaced(bundle, program)
    return bundle


def replaced(bundle: Bundle, program: Program) -> Bundle:
    """The bundle with another file for one of its programs, without golden vectors: a float16 backward pass
    in eager PyTorch takes minutes here."""
    name = f"programs/onnx/{program.name}_float16.onnx"
    path = bundle.root / name
    if not path.exists():
        path.write_bytes(onnx.convert_program(programs.trace(program), path.name)[path.name])
    entry = FileEntry(name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    changed = dataclasses.replace(bundle.programs[program.name], files={"onnx": entry})
    return dataclasses.replace(
        bundle,
        files={**bundle.files, name: entry},
        programs={**bundle.programs, program.name: changed},
    )


class Eager(OnnxEngine):
    """ONNX Runtime but for these programs, which eager PyTorch runs in float16."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(1)
        torch.set_num_threads(1)
        spec = models.resolve_spec("resnet20")
        config = methods.configure("clue", TUNED)
        made = programs.build(FlatModel(models.load(spec, None), spec), "clue", config, 32, halved=names)
        self.functions = {each.name: each.fn for each in made.programs if each.name in names}

    def load(self, path: Path, program: Any) -> Any:
        """See `Engine.load`."""
        if program.name in self.functions:
            return EagerSession(self.functions[program.name], program)
        return super().load(path, program)


class EagerSession:
    """See `Session`."""

    def __init__(self, fn: Any, program: Any) -> None:
        self.fn, self.program = fn, program
        self.in_place: dict[str, str] = {}

    def run(self, inputs: Any, outputs: Any) -> None:
        """See `Session.run`."""
        given = (torch.from_numpy(inputs[port.name].copy()) for port in self.program.inputs)
        for port, result in zip(self.program.outputs, self.fn(*given), strict=True):
            outputs[port.name][...] = result.detach().numpy()


def request(row: Row, bundle: Bundle, subsets: Subsets, seed: int) -> dict[str, Any]:
    """One request: what it ran, what it took, what is left."""
    engine = OnnxEngine(1)
    if row.eager:
        engine = Eager(row.float16)
    served = weights.read(bundle.file(bundle.weights.file), bundle.weights.sha256, bundle)
    meter = Meter(engine, bundle.batch)
    images, labels = subsets.images[: row.count], subsets.labels[: row.count]
    job = Job(images, labels, seed, bundle.merged_scalars(row.scalars))
    runner = Runner(bundle, engine, served, job, meter)
    began = time.process_time()
    runner.run()
    took = time.process_time() - began
    records = meter.records(1, bundle.weights.sha256, "done")
    phases = {
        record["phase"]: {"steps": record["steps"], "cpu_s": record["cpu_s"]}
        for record in records
        if record["phase"] not in ("request", "verify")
    }
    found = {}
    for name, (images, labels) in subsets.measured.items():
        logits = runner.logits(images, np.arange(len(images)))
        found[name] = round(100 * float((logits.argmax(1) == labels).mean()), 2)
    evidence = runner.evidence
    return {
        "row": row.name, "seed": seed, "cpu_s": round(took, 2), "phases": phases, **found,
        "stopped_early": evidence.stopped_early, "stops": len(evidence.stops),
        "density": evidence.metrics.get("saliency", {}).get("density"),
        "step_flops": bundle.programs["step"].flops, "saliency_flops": bundle.programs["saliency"].flops,
        "step_peak_bytes": bundle.programs["step"].peak_bytes,
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="the CIFAR-10 images")
    parser.add_argument("--weights", required=True, type=Path, help="trained ResNet-20")
    parser.add_argument("--out", required=True, type=Path, help="rows are added to this file")
    parser.add_argument("--bundles", required=True, type=Path, help="folder of the exported bundles, kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--row", action="append", help="only rows whose name has this in it")
    given = parser.parse_args()
    done = set()
    if given.out.exists():
        done = {(row["row"], row["seed"]) for row in map(json.loads, given.out.read_text().splitlines())}
    subsets = Subsets(given.data, models.resolve_spec("resnet20"))
    given.bundles.mkdir(parents=True, exist_ok=True)
    for seed in range(given.seeds):
        for row in ROWS:
            if (row.name, seed) in done or (given.row and not any(one in row.name for one in given.row)):
                continue
            result = request(row, exported(row, given.weights, given.bundles), subsets, seed)
            with given.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
