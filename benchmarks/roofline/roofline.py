"""Predicted step times on a Raspberry Pi 5, beside published ones.

    python benchmarks/roofline/roofline.py trace [--only resnet18,vit_ti]
    python benchmarks/roofline/roofline.py table [--into docs/performance.md]
    python benchmarks/roofline/roofline.py gains --only resnet20

`trace` writes what each step computes and moves into results/work.json and keeps what it has traced unless
--again is given. `table` prints the table, or puts it into a document between its markers. `gains` prints
what the forms and each graph pass take from the bytes that a step moves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))
import marked
from pi5 import OPTIMISTIC, PESSIMISTIC, PI5, Work, seconds, totals

if TYPE_CHECKING:
    from clue_mobile.flat import FlatModel
    from clue_mobile.programs import Program

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


def step_of(case: Case, **settings: Any) -> tuple[FlatModel, Program]:
    """CLUE's step on the case's model, by default with batch statistics."""
    from clue_mobile import methods, models, programs
    from clue_mobile.flat import FlatModel

    extra = {"classes": [str(k) for k in range(10)], "input_shape": (3, case.side, case.side)}
    spec = models.resolve_spec(
        case.model, **({} if case.model in models.BUILTIN else {**extra, "mean": [0.5] * 3, "std": [0.5] * 3})
    )
    model = FlatModel(models.load(spec, None, seed=0), spec)
    recipe = programs.build(model, "clue", methods.configure("clue", settings), case.batch)
    return model, next(program for program in recipe.programs if program.name == "step")


def forms_of_a_pi() -> dict[Any, Any]:
    """What `export --target pi5` lowers products to for ONNX Runtime."""
    import exporters
    from clue_mobile.kernel_costs import table

    return table.shipped_overrides("onnx", "pi5", exporters.get("onnx").OVERRIDES)


def traced(case: Case) -> dict[str, Any]:
    """CLUE's step as `export --target pi5` makes it: FLOPs, bytes, planned peak and the nodes' work."""
    import traffic

    import exporters
    from clue_mobile import programs

    model, step = step_of(case)
    onnx = exporters.get("onnx")
    found = programs.trace(step, overrides=forms_of_a_pi(), passes=onnx.PASSES, rules=onnx.MEMORY)
    nodes = traffic.work(found.graph)
    flops, moved = totals(nodes)
    if flops != found.flops:
        raise SystemExit(f"{case.name}: {flops} FLOPs by node, {found.flops} by program")
    return {
        "name": case.name, "side": case.side, "batch": case.batch, "parameters": model.sizes["params"],
        "flops": flops, "bytes": moved, "planned_peak_bytes": found.peak_bytes,
        "work": [astuple(node) for node in nodes],
    }  # fmt: skip


def gains(only: set[str]) -> None:
    """Print what forms and passes take from the bytes of a step, all and each alone."""
    import traffic

    import exporters
    from clue_mobile import programs

    onnx, forms = exporters.get("onnx"), forms_of_a_pi()
    variants = {
        "one form for all, no passes": (onnx.OVERRIDES, ()),
        "chosen forms, no passes": (forms, ()),
        "one form for all, all passes": (onnx.OVERRIDES, onnx.PASSES),
        "chosen forms, all passes": (forms, onnx.PASSES),
        **{f"without `{n}`": (forms, [p for p in onnx.PASSES if p != n]) for n in onnx.PASSES},
    }
    print("| model, batch, statistics | step | operators | GB moved | ratio |\n|---|---|---:|---:|---:|")
    for case in CASES:
        if case.name not in only:
            continue
        for statistics in ("batch", "frozen"):
            _, step = step_of(case, batch_norm=statistics)
            found = {}
            for name, (overrides, passes) in variants.items():
                graph = programs.trace(step, overrides=overrides, passes=passes).graph
                operators = sum(node.op == "call_function" for node in graph.graph.nodes)
                found[name] = operators, totals(traffic.work(graph))[1]
            _, whole = found["chosen forms, all passes"]
            for name, (operators, moved) in found.items():
                head = f"{case.name}, {case.batch}, {statistics} | {name}"
                print(f"| {head} | {operators:,} | {moved / 1e9:.3f} | {moved / whole:.2f} |")


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
    parser.add_argument("what", choices=("trace", "table", "gains"))
    parser.add_argument("--only", default="", help="models, comma-separated")
    parser.add_argument("--again", action="store_true", help="trace what is there too")
    parser.add_argument(
        "--into", type=Path, help="a document with the markers roofline:begin and roofline:end"
    )
    options = parser.parse_args()
    only = {name for name in options.only.split(",") if name}
    if options.what == "trace":
        trace(only, options.again)
        return
    if options.what == "gains":
        gains(only)
        return
    text = table(json.loads(FILE.read_text()))
    if options.into:
        marked.write(options.into, MARKER, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
