"""`clue-pi check`: this device's results beside the golden ones."""

from __future__ import annotations

import argparse
import dataclasses

from pi_runtime import footprint
from pi_runtime.cli.common import open_runtime, show

ABOUT = "compare this device's results with the bundle's golden ones"
EXAMPLE = "clue-pi check cifar.clue --memory"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--memory", action="store_true", help="also measure each program's memory beside the planned peak"
    )


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        results = runtime.check()
        memory = (
            footprint.measure(runtime.bundle, runtime.engine.name, runtime.engine.threads)
            if options.memory
            else []
        )
    lines = [f"{'ok' if r.ok else 'FAILED'} {r.program}.{r.output}: error {r.error:.1e}" for r in results]
    # JSON has no infinity.
    shown = [{**dataclasses.asdict(r), "error": r.error if r.error < float("inf") else None} for r in results]
    if options.memory:
        lines += [_line(each) for each in memory]
        show(options, {"golden": shown, "memory": [dataclasses.asdict(each) for each in memory]}, lines)
    else:
        show(options, shown, lines)
    return 0 if all(r.ok for r in results) else 1


def _line(found: footprint.Footprint) -> str:
    measured = found.reason if found.measured is None else f"{found.measured / 2**20:.1f} MiB measured"
    return f"{found.program}: {found.planned / 2**20:.1f} MiB planned, {measured}"
