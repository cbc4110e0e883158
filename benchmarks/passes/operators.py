"""Which operators a program spends its time on, by ONNX Runtime's own profile of single nodes.

python benchmarks/passes/operators.py --model vit_b_4 --batch 8        # the models of benchmarks/step
CLUE_KERNELS=build/libclue_kernels.so \\
    python benchmarks/passes/operators.py --model resnet18 --batch 8 --runtime onnx-clue
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from passes import bound, session

sys.path.insert(0, str(Path(__file__).parents[1] / "step"))


def profiled(path: Path, runtime: str, threads: int, steps: int, folder: Path) -> dict[str, float]:
    """Operator -> milliseconds of a step, the median over `steps` after one to warm up."""
    import numpy as np

    from pi_runtime.onnx_engine import kernels

    def prepare(options: Any) -> None:
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        if runtime == "onnx-clue":
            options.register_custom_ops_library(str(kernels()))

    made = session(path, threads, prepare)
    binding, _arrays = bound(made)
    for _ in range(steps + 1):
        made.run_with_iobinding(binding)
    events = json.loads(Path(made.end_profiling()).read_text(encoding="utf-8"))
    runs = sorted(e["ts"] for e in events if e.get("name") == "model_run")
    rows: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(runs))
    for event in events:
        operator = event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and operator and event["name"].endswith("_kernel_time"):
            run = int(np.searchsorted(runs, event["ts"], side="right")) - 1
            rows[operator][run] += event["dur"] / 1e3
    return {name: float(np.median(found[1:])) for name, found in rows.items()}


def main() -> None:
    """Trace, convert, profile, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--program", default="step", help="step, saliency, predict or teacher")
    parser.add_argument("--runtime", default="onnx", choices=("onnx", "onnx-clue"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    from prepare import module_of, spec_of

    from clue_mobile import methods, programs
    from clue_mobile.flat import FlatModel
    from exporters import get
    from exporters.base import Source

    model = FlatModel(module_of(options.model), spec_of(options.model))
    recipe = programs.build(model, "clue", methods.configure("clue", {}), options.batch)
    program = next(p for p in recipe.programs if p.name == options.program)
    exporter = get(options.runtime)
    traced = programs.trace(program, overrides=exporter.OVERRIDES, passes=exporter.PASSES)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in exporter.convert([traced], Source(model, recipe), lambda _: None).files.items():
            (Path(folder) / name).write_bytes(content)
        path = Path(folder) / f"{options.program}.onnx"
        found = profiled(path, options.runtime, options.threads, options.steps, Path(folder))
    whole = sum(found.values())
    print(f"| operator of {options.model}'s {options.program} | ms | share |\n|---|---:|---:|")
    for name, spent in sorted(found.items(), key=lambda pair: -pair[1]):
        print(f"| {name} | {spent:.2f} | {100 * spent / whole:.1f} % |")
    print(f"| all | {whole:.1f} | |")


if __name__ == "__main__":
    main()
