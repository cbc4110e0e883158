"""Print the peak memory of the same request with and without the KL term, each in a process of its own.

The peak is the cost record's (VmHWM), "start" the resident memory once bundle and engine are open.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from clue_mobile import models
from clue_mobile.export import ExportRecipe, export

REQUEST = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
from pi_runtime import Runtime
bundle, n = sys.argv[1], int(sys.argv[2])
with tempfile.TemporaryDirectory() as store, Runtime.open(bundle, store + "/s", threads=1) as runtime:
    status = Path("/proc/self/status").read_text().splitlines()
    start = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    c, h, w = runtime.bundle.input_shape
    runtime.add(np.random.default_rng(0).integers(0, 256, (n, h, w, c), np.uint8), 0)
    result = runtime.forget(0, seed=1, verify_at_most=100, scalars={"epochs": 1})
assert result.status == "done", result.reason
print(json.dumps([start, {r["phase"]: r["peak_mem_bytes"] for r in result.records}]))
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="digits_cnn")
parser.add_argument("--weights", type=Path)
parser.add_argument("--images", type=int, default=256)
options = parser.parse_args()
spec = models.resolve_spec(options.model, weights=options.weights)
print(f"{options.model}, N = {options.images}, K = {spec.num_classes}; MiB\n")
print("| kl_weight | start | saliency | teacher | step | verify | request |\n|---|---|---|---|---|---|---|")
peaks = {}
with tempfile.TemporaryDirectory() as folder:
    for weight in (1.0, 0.0):
        recipe = ExportRecipe(target="host", hyperparameters={"kl_weight": weight}, kept_at_least=0)
        bundle = export(models.load(spec, options.weights), spec, Path(folder) / f"{weight}.clue", recipe)
        command = [sys.executable, "-c", REQUEST, str(bundle), str(options.images)]
        start, found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks[weight] = found["request"]
        phases = (found.get(name) for name in ("saliency", "teacher", "step", "verify", "request"))
        cells = [f"{value / 2**20:.1f}" if value else "" for value in (start, *phases)]
        print(f"| {weight} | {' | '.join(cells)} |")
grown, logits = peaks[1.0] - peaks[0.0], 4 * options.images * spec.num_classes
print(f"\nwith - without: {grown / 2**10:.0f} KiB; N * K * 4: {logits / 2**10:.0f} KiB")
