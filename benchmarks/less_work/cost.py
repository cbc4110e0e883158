"""The share of a retraining that one epoch of a CLUE request costs, from measured times of one run.

    python benchmarks/less_work/cost.py BUNDLE TRAIN_BUNDLE [--rounds 3] --out benchmarks/less_work/cost.json

TRAIN_BUNDLE is written where it does not exist. The programs of both bundles are timed in turns, all on ONNX
Runtime with one thread; times are processor seconds (`clue-mobile cost` takes wall seconds, for a machine
that does nothing else). The request has 4,500 samples; retraining takes 182 epochs of 40,500 images (without
the class) or of 45,000, dropping each epoch's last incomplete batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from clue_mobile.study import cost
from pi_runtime.bench import bench
from pi_runtime.bundle import Bundle
from pi_runtime.estimate import counts
from pi_runtime.onnx_engine import OnnxEngine

SAMPLES, EPOCHS, IMAGES = 4500, 182, (40_500, 45_000)
LIMIT = 0.15  # percent of a retraining, for each epoch of the request


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("train_bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each program and round")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    engine = OnnxEngine(1)
    bundle = Bundle.open(given.bundle)
    if given.train_bundle.exists():
        training = Bundle.open(given.train_bundle)
    else:
        training = cost.train_bundle(bundle, given.train_bundle, "onnx", bundle.batch, print)
    taken: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for prefix, each in (("", bundle), ("train_", training)):
            for timing in bench(each, engine, seconds=given.seconds):
                taken.setdefault(f"{prefix}{timing.program}", []).append(timing.cpu_p50_s)
    times = {name: statistics.median(found) for name, found in taken.items()}
    runs = counts(bundle, SAMPLES, {**bundle.scalars, "epochs": 1, "stop_every": 0}).runs
    # `counts` adds the two accuracies of a request, before and after: they are of no epoch
    runs = {name: count for name, count in runs.items() if name != "predict"}
    parts = {name: count * times[name] for name, count in runs.items()}
    rows = []
    for images in IMAGES:
        steps = cost.Setting(SAMPLES, images, EPOCHS, training.batch).train_steps
        whole = steps * times["train_step"]
        share = 100 * sum(parts.values()) / whole
        rows.append(
            {
                "train_images": images, "train_steps": steps, "retrain_s": round(whole),
                "epoch_s": round(sum(parts.values()), 2), "percent": round(share, 4), "limit": LIMIT,
                "parts_percent": {name: round(100 * part / whole, 4) for name, part in parts.items()},
            }
        )  # fmt: skip
    told = {
        "batch": bundle.batch, "runs": runs, "times_ms": {k: round(1000 * v, 2) for k, v in times.items()},
        "verify_s": round(2 * -(-SAMPLES // bundle.batch) * times["predict"], 2), "rows": rows,
    }  # fmt: skip
    given.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
