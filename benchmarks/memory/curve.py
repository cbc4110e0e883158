"""Time against memory: a model's CLUE step with less and less of its activations kept; JSON, CSV and PNG.

`trace` writes the step's files for some shares of the memory that it takes besides inputs and outputs;
`measure` runs each in fresh processes, in turn, with one thread; `draw` makes the picture of all results.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
SHARES = (1.0, 0.8, 0.65, 0.5)
MIB = 2**20


def trace(name: str, batch: int, folder: Path) -> None:
    import exporters
    from clue_mobile import methods, models, programs
    from clue_mobile.errors import ClueError
    from clue_mobile.flat import FlatModel
    from clue_mobile.kernel_costs import table
    from clue_mobile.memory import budget, liveness
    from clue_mobile.methods import clue

    given = {"input_shape": "3,224,224", "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"}
    given["classes"] = ",".join(map(str, range(10)))
    spec = models.resolve_spec(name, **(given if ":" in name else {}))
    model = FlatModel(models.load(spec, None, seed=0), spec)
    recipe = methods.build("clue", model, clue.Config(batch_norm="batch"), batch)
    exporter = exporters.get("onnx")
    forms = table.shipped_overrides("onnx", "host", exporter.OVERRIDES)
    step = next(p for p in recipe.programs if p.name == "step")
    traced = programs.trace(step, overrides=forms, passes=exporter.PASSES, rules=exporter.MEMORY)
    whole = liveness.plan(traced.graph, exporter.MEMORY)
    folder.mkdir(parents=True, exist_ok=True)
    program = traced.program
    ports = {k: [(p.name, p.shape) for p in getattr(program, k)] for k in ("inputs", "outputs")}
    (folder / "ports.json").write_text(json.dumps(ports))
    rows = []
    for share in SHARES:
        allowed = whole.ports_bytes + int(share * (whole.peak_bytes - whole.ports_bytes))
        try:
            fitted = budget.fit(traced.graph, allowed, exporter.MEMORY)
        except ClueError as error:
            print(error)
            break
        files = exporter.convert_program(replace(traced, graph=fitted.graph), f"{share}.onnx")
        (folder / f"{share}.onnx").write_bytes(files[f"{share}.onnx"])
        rows.append({
            "share": share, "planned": fitted.peak_bytes, "planned_minus_ports": fitted.peak_bytes
            - whole.ports_bytes, "flops": traced.flops, "recomputed_flops": fitted.flops,
        })  # fmt: skip
    (folder / "plan.json").write_text(json.dumps({"model": name, "batch": batch, "rows": rows}))


def measure(folder: Path, rounds: int) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    found: dict[float, list[dict[str, float]]] = {row["share"]: [] for row in plan["rows"]}
    for _ in range(rounds):
        for share, runs in found.items():
            path = folder / f"{share}.onnx"
            command = [sys.executable, str(HERE / "step.py"), str(path), "3", str(folder / "ports.json")]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    for row in plan["rows"]:
        runs = found[row["share"]]
        row["peak"] = min(run["peak"] for run in runs)
        row["peak_minus_before"] = min(run["peak"] - run["before"] for run in runs)
        row["source"] = runs[0]["source"]
        row["cpu_s"] = statistics.median(run["cpu_s"] for run in runs)
    stem = plan["model"].replace(":", "_")
    (HERE / f"{stem}.json").write_text(json.dumps(plan, indent=1) + "\n")
    with (HERE / f"{stem}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(plan["rows"][0]))
        writer.writeheader()
        writer.writerows(plan["rows"])


def draw() -> None:
    import matplotlib.pyplot as plt

    plans = [json.loads(path.read_text()) for path in sorted(HERE.glob("*.json"))]
    figure, axes = plt.subplots(1, len(plans), figsize=(4.2 * len(plans), 3.4), squeeze=False)
    for axis, plan in zip(axes[0], plans, strict=True):
        rows = plan["rows"]
        times = [row["cpu_s"] / rows[0]["cpu_s"] for row in rows]
        for key, label in (("planned_minus_ports", "planned"), ("peak_minus_before", "measured")):
            axis.plot([row[key] / MIB for row in rows], times, "o-", label=label)
        axis.set(title=f"{plan['model']}, batch {plan['batch']}", xlabel="MiB besides inputs and outputs")
        axis.set_ylabel("time of a step, without recomputation = 1")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(HERE / "curve.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("trace", "measure", "draw"))
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="for the program files")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "trace":
        trace(options.model, options.batch, options.folder)
    elif options.what == "measure":
        measure(options.folder, options.rounds)
    else:
        draw()
