"""What pi_runtime computes in a request, program by program, for the phone runtimes to compare with.

    python tests/android/reference.py --demo demo_out --out build/reference

writes OUT/toy and OUT/digits (the demo's bundle, forgetting the digit 3; made by `clue-mobile demo` where it
is not there):

    bundle/              a copy of the bundle
    images.safetensors   the request's samples: images, U8 [N, H, W, C], and labels, I64 [N]
    request.json         seed, scalars and the evidence in the end
    trace.jsonl          one line for each run of a program: its name, inputs {port: SHA-256 of what was drawn
                         or cut from the samples}, metrics, masks {port: zeros and ones, packed, base64}
    weights.safetensors  the new weights
    told.txt             (digits) what clue-pi prints of the same request, carried out through a store
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pi_runtime import engines, weights
from pi_runtime.bundle import Bundle, Program
from pi_runtime.cli.common import told
from pi_runtime.cost import Meter
from pi_runtime.engine import Arrays, Engine, Session
from pi_runtime.power import Choice, open_source
from pi_runtime.power.ledger import Ledger
from pi_runtime.request import Job, Runner
from pi_runtime.runtime import Runtime

ROOT = Path(__file__).parents[2]
SEED = 7
DIGIT = 3


class Recording:
    """An engine that notes what each run is given and gives."""

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        self._engine, self._bundle = engine, bundle
        self.name, self.version = engine.name, engine.version
        self.backend, self.threads = engine.backend, engine.threads
        self.lines: list[str] = []

    def load(self, path: Path, program: Program) -> Session:
        return _Session(self, self._engine.load(path, program), program)

    def note(self, program: Program, inputs: Arrays, outputs: Arrays) -> None:
        drawn = {
            port.name: hashlib.sha256(inputs[port.name].tobytes()).hexdigest()
            for port in program.inputs
            if port.role in ("random", "batch")
        }
        metrics = {port.name: float(outputs[port.name]) for port in program.outputs if port.role == "metric"}
        masks = {
            port.name: base64.b64encode(
                np.packbits(outputs[port.name] == 1, bitorder="little").tobytes()
            ).decode()
            for port in program.outputs
            if port.role == "carry" and self._bundle.values[port.binds].storage == "bits"
        }
        line = {"program": program.name, "inputs": drawn, "metrics": metrics, "masks": masks}
        self.lines.append(json.dumps(line))


class _Session:
    def __init__(self, recording: Recording, session: Session, program: Program) -> None:
        self._recording, self._session, self._program = recording, session, program
        self.in_place: Mapping[str, str] = {}  # what went in is looked at afterwards

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        self._session.run(inputs, outputs)
        self._recording.note(self._program, inputs, outputs)


def record(
    out: Path, bundle: Path, images: NDArray[np.uint8], label: int, scalars: Mapping[str, float] = {}
) -> None:
    """Carry out the plan for these samples of one class and write what the module says."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(bundle, out / "bundle", dirs_exist_ok=True)
    opened = Bundle.open(out / "bundle")
    labels = np.full(len(images), label, np.int64)
    save_file({"images": np.ascontiguousarray(images), "labels": labels}, out / "images.safetensors")
    merged = opened.merged_scalars(scalars)
    engine = Recording(engines.choose(opened, "onnx", threads=1), opened)
    served = weights.read(opened.root / opened.weights.file, opened.weights.sha256, opened)
    ledger = Ledger(open_source(Choice("off")), out, 1)
    began = time.perf_counter()
    try:
        runner = Runner(opened, engine, served, Job(images, labels, SEED, merged), Meter(engine, 1, ledger))
        runner.run()
        after = runner.accuracy("predict")
    finally:
        ledger.close()
    seconds = time.perf_counter() - began
    weights_file = out / "weights.safetensors"
    weights_file.unlink(missing_ok=True)
    weights.write(weights_file, runner.values.state())
    request: dict[str, Any] = {"seed": SEED, "scalars": merged, "engine": engine.version, "seconds": seconds}
    request |= {"evidence": dataclasses.asdict(runner.evidence), "forget_accuracy_after": after}
    (out / "request.json").write_text(json.dumps(request, indent=1))
    (out / "trace.jsonl").write_text("\n".join(engine.lines) + "\n")


def toy(out: Path) -> None:
    """The bundle of the scenarios: every feature of a plan."""
    scenarios = ROOT / "contract" / "scenarios"
    record(out, scenarios / "bundles" / "toy", load_file(scenarios / "images.safetensors")["cat"][:10], 0)


def digits(out: Path, demo: Path) -> None:
    """The bundle of the demo, and the training images of a digit."""
    from clue_mobile import data, models
    from clue_mobile.study.demo import run_demo

    if not (demo / "digits.clue" / "manifest.json").exists():
        run_demo(demo, str(DIGIT), 0, tell=print)
    spec = models.resolve_spec("digits_cnn")
    loaded = data.load("digits", input_shape=spec.input_shape, classes=spec.classes)
    images = loaded.train.of_class(DIGIT).images
    record(out, demo / "digits.clue", images, DIGIT)
    with tempfile.TemporaryDirectory() as store, Runtime.open(out / "bundle", store, threads=1) as runtime:
        runtime.power = Choice("off")
        runtime.add(images, DIGIT)
        result = runtime.forget(DIGIT, seed=SEED)
    lines = told(result.status, result.reason, result.evidence)
    (out / "told.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo_out"), help="the folder of `make demo`")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    toy(options.out / "toy")
    digits(options.out / "digits", options.demo)


if __name__ == "__main__":
    main()
