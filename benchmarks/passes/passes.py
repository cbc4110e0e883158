"""What each graph pass gains: the step with all of them, and with each switched off in turn, taking turns.

python benchmarks/passes/passes.py --rounds 20 --json benchmarks/passes/resnet20.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROOT = Path(__file__).parents[2]
NONE = "none of them"


def session(path: Path, threads: int, prepare: Callable[[Any], None] = lambda options: None) -> Any:
    """A session with the options of pi_runtime's engine, but an arena of its own; `prepare` may add some."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    prepare(options)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bound(made: Any, seed: int = 0) -> tuple[Any, list[Any]]:
    """An io binding of random inputs and of outputs, and the arrays that it keeps alive."""
    rng = np.random.default_rng(seed)
    binding, arrays = made.io_binding(), []
    for ports, bind in ((made.get_inputs(), binding.bind_input), (made.get_outputs(), binding.bind_output)):
        for port in ports:
            array = np.array(0.1 * rng.random(port.shape, dtype=np.float32), np.float32)  # also without axes
            arrays.append(array)
            bind(port.name, "cpu", 0, np.float32, list(array.shape), array.ctypes.data)
    return binding, arrays


def child(path: Path, threads: int, steps: int) -> None:
    """Run some steps alone; prints how many bytes the process grew from the first one on."""
    made = session(path, threads)
    binding, _arrays = bound(made)
    before = _kilobytes("VmRSS")
    for _ in range(steps):
        made.run_with_iobinding(binding)
    print((_kilobytes("VmHWM") - before) * 1024)


def _kilobytes(key: str) -> int:
    """A line of this process's status; ru_maxrss would begin at what the parent process had."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


def alone(path: Path, threads: int, steps: int, *prefix: str) -> str:
    """`child` in a process of its own, below the program `prefix` where one is given."""
    command = [
        *prefix, sys.executable, __file__, "--child", str(path),
        "--threads", str(threads), "--rounds", str(steps),
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def instructions(path: Path) -> int:
    """Instructions of one step: those of three steps less those of one, halved, by callgrind."""
    counts = []
    for steps in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "callgrind"
            alone(path, 1, steps, "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}")
            total = next(
                line for line in out.read_text().splitlines() if line.startswith(("totals:", "summary:"))
            )
            counts.append(int(total.split()[1]))
    return (counts[1] - counts[0]) // 2


def variants() -> dict[str, dict[str, Any]]:
    """Name -> what `programs.trace` is given."""
    from exporters import onnx

    whole = {"overrides": onnx.OVERRIDES, "passes": onnx.PASSES}
    made: dict[str, dict[str, Any]] = {"all": whole, NONE: {"passes": ()}}
    for name in onnx.PASSES:
        made[f"without {name}"] = {**whole, "passes": [p for p in onnx.PASSES if p != name]}
    made["without onnx_forms"] = {**whole, "overrides": {}}
    return made


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20", help="a model's name, such as resnet20 or vit_small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batch-norm", default="batch", choices=("batch", "batch_keep_running", "frozen"))
    parser.add_argument("--program", default="step", help="step, saliency, predict or teacher")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--callgrind", action="store_true", help="count instructions too (minutes a row)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Trace, convert, run in turns, print a table."""
    options = parse()
    if options.child:
        child(options.child, options.threads, options.rounds)
        return
    import onnxruntime
    import torch

    from clue_mobile import methods, models, programs
    from clue_mobile.flat import FlatModel
    from exporters import onnx

    torch.set_num_threads(1)
    spec = models.resolve_spec(options.model)
    model = FlatModel(models.load(spec, None, seed=0), spec)
    config = methods.configure("clue", {"batch_norm": options.batch_norm})
    recipe = programs.build(model, "clue", config, options.batch)
    program = next(p for p in recipe.programs if p.name == options.program)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for number, (name, arguments) in enumerate(variants().items()):
            print(f"tracing: {name}", file=sys.stderr, flush=True)
            files = onnx.convert_program(programs.trace(program, **arguments))
            path = Path(folder) / f"{number}.onnx"
            path.write_bytes(files["model.onnx"])
            made = session(path, options.threads)
            running[name] = (made, *bound(made))
            rows[name] = {"path": path, "nodes": _nodes(path), "cpu": [], "wall": []}
        for turn in range(options.rounds + 1):
            for name, (made, binding, _) in running.items():
                wall, cpu = time.perf_counter(), time.process_time()
                made.run_with_iobinding(binding)
                if turn:  # the first round warms up
                    rows[name]["wall"].append(1e3 * (time.perf_counter() - wall))
                    rows[name]["cpu"].append(1e3 * (time.process_time() - cpu))
        for row in rows.values():
            path = row.pop("path")
            row["peak_mb"] = int(alone(path, options.threads, 3)) / 1e6
            if options.callgrind:
                row["instructions"] = instructions(path)
    _report(options, rows, onnxruntime.__version__)


def _nodes(path: Path) -> int:
    import onnx

    return len(onnx.load(path).graph.node)


def _report(options: argparse.Namespace, rows: dict[str, dict[str, Any]], version: str) -> None:
    whole = np.array(rows["all"]["cpu"])
    for row in rows.values():
        cpu, wall = np.array(row.pop("cpu")), np.array(row.pop("wall"))
        row |= {
            "wall_ms": float(np.median(wall)),
            "cpu_ms": float(np.median(cpu)),
            "cpu_ms_least": float(cpu.min()),
            "ratio": float(np.median(cpu / whole)),
        }
    columns = ["nodes", "wall ms", "CPU ms", "least CPU ms", "ratio to all", "peak MB"]
    columns += ["10^9 instructions"] if options.callgrind else []
    print(f"| {options.program} of {options.model} | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * (6 + options.callgrind))
    for name, row in rows.items():
        print(
            f"| {name} | {row['nodes']} | {row['wall_ms']:.0f} | {row['cpu_ms']:.0f} | "
            f"{row['cpu_ms_least']:.0f} | {row['ratio']:.3f} | {row['peak_mb']:.0f} |"
            + (f" {row['instructions'] / 1e9:.3f} |" if options.callgrind else "")
        )
    if options.json:
        about = {
            key: getattr(options, key)
            for key in ("model", "program", "batch", "batch_norm", "threads", "rounds")
        }
        content = {**about, "onnxruntime": version, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
