"""A float16 teacher and step of ResNet-20 beside float32, on this processor and on an emulated Cortex-A76.

    python benchmarks/precision/native.py --bundle all.clue --data cifar10_images.zip --aarch64 FOLDER

BUNDLE is one of `benchmarks/less_work` after its rows in float16; FOLDER is what tests/aarch64/fetch.sh
makes. The inputs are a request's first step: CIFAR-10's airplanes, the trained weights, their mask at tau
0.001, momentum zero, and the float32 teacher's logits of the noisy images. Error: largest difference over
largest value.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from clue_mobile import data, models
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.clue import NOISE, SIGMA
from pi_runtime import weights
from pi_runtime.bundle import Bundle

HERE = Path(__file__).resolve().parent
BATCH = 32


def run(python: list[str], program: Path, given: Path, out: Path) -> dict[str, np.ndarray]:
    """The outputs of a program on one machine."""
    subprocess.run([*python, str(HERE / "run_program.py"), str(program), str(given), str(out)], check=True)
    with np.load(out) as found:
        return {name: found[name] for name in found.files}


def inputs(bundle: Bundle, source: str) -> dict[str, np.ndarray]:
    """What the ports of saliency, mask, teacher and step are joined to."""
    spec = models.resolve_spec("resnet20")
    found = data.load(
        source, input_shape=spec.input_shape, classes=spec.classes, validation_per_class=500
    ).train.of_class(0)
    batches = Batches(found.images[:BATCH], found.labels[:BATCH], spec.num_classes, 0, "none")
    rows = np.arange(BATCH)
    served = weights.read(bundle.file(bundle.weights.file), bundle.weights.sha256, bundle)
    state = {key: np.array(served[key]) for key in served}
    zeros = np.zeros_like(state["params"])
    return {
        **state,
        "x": batches.x(0, rows).numpy(),
        "onehot": batches.onehot(rows).numpy(),
        "noise": batches.normal(NOISE, 0, rows).numpy(),
        "sigma": batches.uniform(SIGMA, 0, rows, 0.5, 1.0).numpy(),
        "grad_sum": zeros,
        "momentum": zeros,
        "mask": zeros,
        "lr": np.array(1e-4, np.float32),
        "tau": np.array(1e-3, np.float32),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--aarch64", type=Path, help="of tests/aarch64/fetch.sh; without it only this processor"
    )
    given = parser.parse_args()
    programs = given.bundle / "programs/onnx"
    here = [sys.executable]
    machines = {"here": here}
    if given.aarch64:
        machines["cortex-a76"] = [str(HERE.parents[1] / "tests/aarch64/python.sh"), str(given.aarch64)]
    with tempfile.TemporaryDirectory() as folder:
        place, out = Path(folder) / "in.npz", Path(folder) / "out.npz"
        known = inputs(Bundle.open(given.bundle), given.data)
        np.savez(place, **known)
        # the mask of these images: their gradient counts for a saliency batch of 256
        total = run(here, programs / "saliency.onnx", place, out)["grad_sum_next"] * (256 / BATCH)
        np.savez(place, **{**known, "grad_sum": total})
        known["mask"] = run(here, programs / "mask.onnx", place, out)["mask_next"]
        teacher = run(here, programs / "teacher.onnx", place, out)
        known["teacher"] = teacher["logits"]
        np.savez(place, **known)
        wanted = {"teacher": teacher, "step": run(here, programs / "step.onnx", place, out)}
        for machine, python in machines.items():
            for name, exact in wanted.items():
                for suffix in ("", "_float16"):
                    got = run(python, programs / f"{name}{suffix}.onnx", place, out)
                    errors = {
                        port: float(
                            f"{np.abs(got[port] - exact[port]).max() / np.abs(exact[port]).max():.1e}"
                        )
                        for port in exact
                    }
                    told = {"machine": machine, "program": name + suffix, "errors": errors}
                    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
