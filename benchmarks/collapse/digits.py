"""The retain-free signal on the digits bundle of `clue-mobile demo`, by the device runtime, for every digit.

Each request runs with the scalars of its bundle, or another --lr, and no limit for the signal. A line of JSON
for each: forget accuracy after, test accuracy on the other digits before and after, the signal, and what 8
guard images of each would show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from clue_mobile import data
from pi_runtime import Runtime

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bundle", type=Path, required=True)
parser.add_argument("--out", type=Path, default=Path(__file__).with_name("digits.jsonl"))
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
parser.add_argument("--lr", type=float, help="another rate")
options = parser.parse_args()

digits = data.load("digits", input_shape=(1, 8, 8))
done = (
    {json.loads(line)["run"] for line in options.out.read_text().splitlines()}
    if options.out.exists()
    else set()
)
with tempfile.TemporaryDirectory() as folder:
    bundle = shutil.copytree(options.bundle, Path(folder) / "digits.clue")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["method"]["verify"]["collapse"] = {
        "probes": 320,
        "kept_at_least": 0,
        "largest_share_at_most": 100,
    }
    text = json.dumps(manifest)
    (bundle / "manifest.json").write_text(text)
    (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")
    for label in range(10):
        others = digits.test.without_class(label)
        guard = np.concatenate([np.flatnonzero(others.labels == k)[:8] for k in range(10) if k != label])
        for seed in options.seeds:
            run = json.dumps({"class": label, "seed": seed, "lr": options.lr})
            if run in done:
                continue
            with Runtime.open(bundle, Path(folder) / f"store{label}{seed}", threads=1) as runtime:
                before = runtime.predict(others.images).argmax(1) == others.labels
                runtime.add(digits.train.of_class(label).images, label)
                scalars = {} if options.lr is None else {"lr": options.lr}
                result = runtime.forget(label, seed=seed, scalars=scalars, verify_at_most=100)
                after = runtime.predict(others.images).argmax(1) == others.labels
            row = {
                "run": run,
                "status": result.status,
                "ua": result.evidence["forget_accuracy_after"],
                "ra_before": round(100 * before.mean(), 2),
                "ra": round(100 * after.mean(), 2),
                "kept": result.evidence["collapse"]["kept"],
                "largest_share_after": result.evidence["collapse"]["largest_share_after"],
                "guard_drop": round(100 * (before[guard].mean() - after[guard].mean()), 2),
            }
            with options.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
