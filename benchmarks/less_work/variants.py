"""What the step's variants for cut points save: FLOPs, planned memory, and time in turns with the whole step.

    python benchmarks/less_work/variants.py [--cut-points 3] [--rounds 12] --out variants.json

ResNet-20, batch 32, CLUE with frozen statistics, ONNX Runtime, one thread, processor time, median of the
rounds. The mask is empty below the last cut, so that every variant must give what the whole step gives:
`error` is the largest difference of a weight from it, over the largest change of a weight.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime

from clue_mobile import cuts, methods, models, programs
from clue_mobile.flat import FlatModel
from exporters import onnx


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cut-points", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    spec = models.resolve_spec("resnet20")
    model = FlatModel(models.load(spec, None, seed=0), spec)
    config = methods.configure("clue", {"batch_norm": "frozen"})
    recipe = programs.build(model, "clue", config, 32, cut_points=given.cut_points)
    shares, offsets = cuts.boundaries(model), cuts.choose(model, given.cut_points)
    places = {"step": 0} | {f"step_from_{i}": offset for i, offset in enumerate(offsets, 1)}
    names = {entry.offset: entry.name for entry in model.entries if entry.value == "params"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    traced, sessions = {}, {}
    for program in recipe.programs:
        if program.name in places:
            traced[program.name] = programs.trace(program)
            file = onnx.convert_program(traced[program.name], "step.onnx")["step.onnx"]
            sessions[program.name] = onnxruntime.InferenceSession(file, options)
    rng = np.random.default_rng(0)
    state = {name: vector.numpy() for name, vector in model.pack().items()}
    size = len(state["params"])
    feed = {
        **state,
        "momentum": rng.normal(0, 1e-3, size).astype(np.float32),
        "mask": (np.arange(size) >= offsets[-1]).astype(np.float32),
        "x": rng.random((32, 3, 32, 32), dtype=np.float32),
        "teacher": rng.normal(size=(32, 10)).astype(np.float32),
        "lr": np.array(1e-2, np.float32),
    }
    taken: dict[str, list[float]] = {name: [] for name in places}
    ended = {}
    for _ in range(given.rounds):
        for name in places:
            began = time.process_time()
            ended[name] = sessions[name].run(["params_next"], feed)[0]
            taken[name].append(time.process_time() - began)
    change = np.abs(ended["step"] - state["params"]).max()
    rows = [
        {
            "program": name,
            "stops_before": names[places[name]],
            "forward_share_below": round(shares[places[name]], 3),
            "gflop": round(traced[name].flops / 1e9, 3),
            "planned_peak_mib": round(traced[name].peak_bytes / 2**20, 1),
            "cpu_ms": round(1000 * statistics.median(taken[name][2:]), 1),
            "of_the_step": round(
                statistics.median(taken[name][2:]) / statistics.median(taken["step"][2:]), 3
            ),
            "error": float(f"{np.abs(ended[name] - ended['step']).max() / change:.1e}"),
            "nodes": len(traced[name].graph.graph.nodes),
        }
        for name in places
    ]
    for row in rows:
        print(json.dumps(row))
    given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
