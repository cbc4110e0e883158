"""Carries out the digits request of `clue-mobile demo` with pi_runtime and writes what it did, for another
runtime to be compared with: python tests/ios_demo/make_reference.py DEMO_FOLDER OUT_FOLDER

OUT_FOLDER gets the bundle (digits.clue), the samples of the digit (samples.safetensors) and
- reference.json: seed, scalars, evidence, what clue-pi prints, the records' phases and steps, and of every
  program that ran its name and the SHA-256 of each input that is no weight: pixels, labels, noise;
- reference.safetensors: the final arrays (`final.KEY`) and each value that was written and is kept as bits,
  in order (`bits.NUMBER`): the masks;
- toy.json: the same of plans that have everything a plan can have, by the toy bundle of contract/scenarios.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from pi_runtime import Bundle, Runtime, weights
from pi_runtime.bundle import Program
from pi_runtime.cli.common import told
from pi_runtime.cost import Meter
from pi_runtime.engine import Array, Session
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.request import Job, Runner
from pi_runtime.store import Store

SEED = 0
LABEL = "3"
_WEIGHTS = ("state", "carry", "cache")


class Recorder:
    """An engine that notes what its programs are given, and the bits that they write."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.engine = bundle, OnnxEngine(threads=1)
        self.name, self.version = self.engine.name, self.engine.version
        self.backend, self.threads = self.engine.backend, self.engine.threads
        self.runs: list[dict[str, Any]] = []
        self.bits: dict[str, Array] = {}

    def load(self, path: Path, program: Program) -> Session:
        return Recorded(self, self.engine.load(path, program), program)


class Recorded:
    def __init__(self, recorder: Recorder, session: Session, program: Program) -> None:
        self.recorder, self.session, self.program = recorder, session, program
        self.in_place = session.in_place

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        given = {
            port.name: hashlib.sha256(inputs[port.name].tobytes()).hexdigest()
            for port in self.program.inputs
            if port.role not in _WEIGHTS
        }
        self.recorder.runs.append({"program": self.program.name, "inputs": given})
        self.session.run(inputs, outputs)
        for port in self.program.outputs:
            value = self.recorder.bundle.values.get(port.binds)
            if value is not None and value.storage == "bits":
                self.recorder.bits[f"bits.{len(self.recorder.bits):04}"] = outputs[port.name].copy()


def main(demo: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    bundle_folder = out / "digits.clue"
    shutil.rmtree(bundle_folder, ignore_errors=True)
    # The runtime in it is the Raspberry Pi's and of no use here, but it is among the files of the manifest.
    shutil.copytree(demo / "digits.clue", bundle_folder)
    bundle = Bundle.open(bundle_folder)
    images = digits(bundle)
    labels = np.full(len(images), bundle.label(LABEL), np.int64)
    save_file({"images": images, "labels": labels}, out / "samples.safetensors")
    recorder = Recorder(bundle)
    with (
        tempfile.TemporaryDirectory() as folder,
        Runtime(bundle, Store(Path(folder) / "store", bundle), recorder) as runtime,
    ):
        runtime.add(images, LABEL)
        result = runtime.forget(LABEL, seed=SEED)
        if result.status != "done":
            raise SystemExit(f"the request is {result.status}: {result.reason}")
        final = load_file(runtime.serving.path)
    arrays = {**{f"final.{key}": array for key, array in final.items()}, **recorder.bits}
    save_file(arrays, out / "reference.safetensors")
    reference = {
        "seed": SEED,
        "label": LABEL,
        "engine": [recorder.name, recorder.version, recorder.threads],
        "scalars": bundle.merged_scalars(None),
        "evidence": result.evidence,
        "records": [{key: record[key] for key in ("phase", "steps", "batch")} for record in result.records],
        "told": told(result.status, result.reason, result.evidence),
        "runs": recorder.runs,
    }
    (out / "reference.json").write_text(json.dumps(reference, indent=1), encoding="utf-8")
    (out / "toy.json").write_text(json.dumps(toys(), indent=1), encoding="utf-8")


# Fewer samples than a batch, as many as fill none, more than two; a stop that is taken, one never measuring.
_TOYS: tuple[dict[str, Any], ...] = (
    {"label": "cat", "n": 3, "seed": 5, "scalars": {"stop_at": 0.0}},
    {"label": "dog", "n": 7, "seed": 2**53 - 1, "scalars": {"check_every": 1.0, "stop_at": 60.0, "lr": 0.1}},
    {"label": "10", "n": 19, "seed": 6, "scalars": {"inner": 3.0, "check_every": 0.0, "epochs": 1.6}},
)


def toys() -> list[dict[str, Any]]:
    """What pi_runtime does with each of the toy requests."""
    scenarios = Path(__file__).parents[2] / "contract" / "scenarios"
    bundle = Bundle.open(scenarios / "bundles" / "toy")
    images = load_file(scenarios / "images.safetensors")
    found = []
    for given in _TOYS:
        recorder = Recorder(bundle)
        n, label = given["n"], given["label"]
        labels = np.full(n, bundle.label(label), np.int64)
        merged = bundle.merged_scalars(given["scalars"])
        served = weights.read(bundle.file(bundle.weights.file), bundle.weights.sha256, bundle)
        job = Job(images[label][:n], labels, given["seed"], merged)
        runner = Runner(bundle, recorder, served, job, Meter(recorder, bundle.batch))
        runner.run()
        state = {key: array.tolist() for key, array in runner.values.state().items()}
        evidence = dataclasses.asdict(runner.evidence)
        found.append({**given, "runs": recorder.runs, "evidence": evidence, "state": state})
    return found


def digits(bundle: Bundle) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The training images of the digit, as the demo stores them."""
    from clue_mobile import data

    channels, height, width = bundle.input_shape
    dataset = data.load("digits", input_shape=(channels, height, width), classes=bundle.classes)
    images: np.ndarray[Any, np.dtype[np.uint8]] = dataset.train.of_class(bundle.label(LABEL)).images
    return np.ascontiguousarray(images)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
