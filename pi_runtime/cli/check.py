"""`clue-pi check`: this device's results beside the golden ones."""

from __future__ import annotations

import argparse
import dataclasses

from pi_runtime.cli.common import open_runtime, show

ABOUT = "compare this device's results with the bundle's golden ones"
EXAMPLE = "clue-pi check cifar.clue"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    del parser  # it has none


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        results = runtime.check()
    lines = [f"{'ok' if r.ok else 'FAILED'} {r.program}.{r.output}: error {r.error:.1e}" for r in results]
    # JSON has no infinity.
    shown = [{**dataclasses.asdict(r), "error": r.error if r.error < float("inf") else None} for r in results]
    show(options, shown, lines)
    return 0 if all(r.ok for r in results) else 1
