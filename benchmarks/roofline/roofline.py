"""Predicted step times on a Raspberry Pi 5, beside published ones.

    python benchmarks/roofline/roofline.py trace [--only resnet18,vit_ti]
    python benchmarks/roofline/roofline.py table [--into docs/performance.md]

`trace` writes what each step computes and moves into results/work.json and keeps what it has traced unless
--again is given. `table` prints the table, or puts it into a document between its markers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import marked
from pi5 import OPTIMISTIC, PESSIMISTIC, PI5, Work, seconds, totals

HERE = Path(__file__).parent
FILE = HERE / "results" / "work.json"
MARKER = "roofline"
# seconds a batch, PyTorch on a Raspberry Pi 5, all parameters trained, 224x224, batch 16:
# https://flower.ai/blog/2023-12-07-raspberrypi-is-ready-for-fl
PUBLISHED = {("resnet18", 16): 5.84, ("mobilenet_v2", 16): 7.22, ("vit_ti", 16): 2.99, ("vit_b", 16): 23.5}


@dataclass(frozen=True)
class Case:
    """A model (as `clue-mobile export --model` takes it), its square input, a batch."""

    name: str
    model: str
    side: int
    batch: int


CASES = (
    Case("resnet20", "resnet20", 32, 32),
    Case("resnet20", "resnet20", 32, 256),
    *(Case("resnet18", "torchvision:resnet18", 224, batch) for batch in (8, 16)),
    *(Case("mobilenet_v2", "torchvision:mobilenet_v2", 224, batch) for batch in (8, 16)),
    *(Case("vit_ti", "timm:vit_tiny_patch16_224", 224, batch) for batch in (8, 16)),
    Case("vit_b", "timm:vit_base_patch16_224", 224, 16),
    Case("vit_b_patch4", str(HERE / "vit.py") + ":vit_b_patch4", 32, 8),
)


def traced(case: Case) -> dict[str, Any]:
    """The step of CLUE on ONNX Runtime's forms: FLOPs, bytes, planned peak and the nodes' work."""
    import traffic

    from clue_mobile import methods, models, programs
    from clue_mobile.flat import FlatModel
    from exporters import onnx

    extra = {"classes": [str(k) for k in range(10)], "input_shape": (3, case.side, case.side)}
    spec = models.resolve_spec(
        case.model, **({} if case.model in models.BUILTIN else {**extra, "mean": [0.5] * 3, "std": [0.5] * 3})
    )
    model = FlatModel(models.load(spec, None, seed=0), spec)
    recipe = programs.build(model, "clue", methods.configure("clue", {}), case.batch)
    step = next(program for program in recipe.programs if program.name == "step")
    found = programs.trace(step, overrides=onnx.OVERRIDES)
    nodes = traffic.work(found.graph)
    flops, moved = totals(nodes)
    if flops != found.flops:
        raise SystemExit(f"{case.name}: {flops} FLOPs by node, {found.flops} by program")
    return {
        "name": case.name, "side": case.side, "batch": case.batch, "parameters": model.sizes["params"],
        "flops": flops, "bytes": moved, "planned_peak_bytes": found.peak_bytes,
        "work": [astuple(node) for node in nodes],
    }  # fmt: skip


def trace(only: set[str], again: bool) -> None:
    """Trace the cases that are missing, saving after each."""
    rows = (
        {(row["name"], row["batch"]): row for row in json.loads(FILE.read_text())} if FILE.is_file() else {}
    )
    for case in CASES:
        key = (case.name, case.batch)
        if (only and case.name not in only) or (key in rows and not again):
            continue
        start = time.monotonic()
        rows[key] = traced(case)
        FILE.parent.mkdir(exist_ok=True)
        ordered = [rows[c.name, c.batch] for c in CASES if (c.name, c.batch) in rows]
        FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in ordered) + "\n]\n")
        print(f"{case.name}, batch {case.batch}: {time.monotonic() - start:.0f} s", file=sys.stderr)


def _short(value: float) -> str:
    """Three digits, all of them where there are more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what each step computes and moves, the two bounds, the prediction, what is published."""
    lines = [
        "| model, input | batch | GFLOP | GB moved | planned peak, MB | arithmetic alone, s "
        "| memory alone, s | **predicted step, s** | published, PyTorch, s | its GFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        nodes = [Work(*node) for node in row["work"]]
        flops, moved = totals(nodes)
        low, high = (seconds(nodes, PI5, given) for given in (OPTIMISTIC, PESSIMISTIC))
        known = PUBLISHED.get((row["name"], row["batch"]))
        lines.append(
            f"| {row['name']}, {row['side']} | {row['batch']} | {_short(flops / 1e9)} "
            f"| {_short(moved / 1e9)} | {row['planned_peak_bytes'] / 1e6:,.0f} | {flops / PI5.peak:.2g} "
            f"| {moved / OPTIMISTIC.bandwidth:.2g} | **{low:.2g} to {high:.2g}** | {known or '-'} "
            f"| {f'{flops / known / 1e9:.0f}' if known else '-'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("trace", "table"))
    parser.add_argument("--only", default="", help="models, comma-separated")
    parser.add_argument("--again", action="store_true", help="trace what is there too")
    parser.add_argument(
        "--into", type=Path, help="a document with the markers roofline:begin and roofline:end"
    )
    options = parser.parse_args()
    if options.what == "trace":
        trace({name for name in options.only.split(",") if name}, options.again)
        return
    text = table(json.loads(FILE.read_text()))
    if options.into:
        marked.write(options.into, MARKER, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
