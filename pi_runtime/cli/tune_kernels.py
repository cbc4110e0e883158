"""`clue-pi tune-kernels`: what each form of a convolution's products costs on this device."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from pi_runtime import kernel_costs
from pi_runtime.cli.common import show
from pi_runtime.engines import ENGINES
from pi_runtime.errors import ClueError

ABOUT = "time the candidates that clue-mobile tune-kernels wrote, for an export that is fast on this device"
EXAMPLE = "clue-pi tune-kernels candidates --threads 1 --out costs.json"
IMAGES = False
STANDALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what tune-kernels --bundle-only wrote")
    parser.add_argument(
        "--out", type=Path, default=Path("costs.json"), metavar="FILE",
        help="the cost table; costs that it has already are not measured again (default: costs.json)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="for each product of a shape (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be measured, and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    runtime, candidates = kernel_costs.read_candidates(options.folder)
    if runtime not in ENGINES:
        raise ClueError(f"the candidates are for {runtime}, and this runtime runs {', '.join(ENGINES)}")
    module, name, package, install = ENGINES[runtime]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ClueError(f"{install} is not installed: pip install {install}") from error
    engine = getattr(importlib.import_module(module), name)(options.threads)
    records = kernel_costs.read_records(options.out) if options.out.exists() else []
    record = kernel_costs.record_of(records, engine)
    todo = kernel_costs.missing(candidates, record)
    if options.dry_run:
        lines = [f"{each.key}: {', '.join(each.forms)}" for each in todo]
        show(options, {"would_measure": [[each.key, list(each.forms)] for each in todo]}, lines)
        return 0
    start = time.monotonic()

    def tell(done: int, total: int, note: str) -> None:
        if not options.quiet and note:
            passed = time.monotonic() - start
            left = f", {passed * (total - done) / done:.0f} s left" if done else ""
            print(f"clue-pi: {done} of {total}{left}: {note}", file=sys.stderr)

    kernel_costs.measure(
        todo,
        engine,
        record,
        seconds=options.seconds,
        save=lambda: kernel_costs.write_records(options.out, records),
        tell=tell,
    )
    show(options, record.to_json(), [*kernel_costs.summary([record]), f"costs: {options.out}"])
    return 0
