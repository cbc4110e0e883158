"""`clue-pi bench`: how long each program takes here, and how much energy."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from pi_runtime import engines, power
from pi_runtime.bench import BUSY, bench
from pi_runtime.bundle import Bundle
from pi_runtime.cli.common import default_bundle, power_arguments, power_choice, show

ABOUT = "time each program of the bundle on this device, and measure its energy where a source does"
EXAMPLE = "clue-pi bench cifar.clue --json > times.json"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="for each program (default: 2)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    power_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    bundle = Bundle.open(options.paths or default_bundle())
    engine = engines.choose(bundle, options.engine, options.threads)
    opened = power.open_source(power_choice(options))

    def tell(name: str) -> None:
        if not options.quiet:
            print(f"clue-pi: {name}", file=sys.stderr)

    try:
        timings = bench(bundle, engine, seconds=options.seconds, opened=opened, tell=tell)
    finally:
        opened.close()
    result = {
        "bundle": bundle.name,
        "manifest_sha256": bundle.sha256,
        "runtime": {"name": engine.name, "version": engine.version, "threads": engine.threads},
        "power": opened.reason or None,
        "programs": [dataclasses.asdict(timing) for timing in timings],
    }
    lines = [
        f"{t.program}: {1000 * t.p50_s:.2f} ms (p95 {1000 * t.p95_s:.2f}), batch {t.batch}, {t.runs} runs, "
        + ("energy not measured" if t.joules is None else f"{t.joules:.4f} J {t.energy_kind}")
        for t in timings
    ]
    busy = max((timing.busy or 0.0 for timing in timings), default=0.0)
    if busy > BUSY:
        lines.append(
            f"note: other programs used up to {busy:.0%} of the processors: these times are too long"
        )
    show(options, result, lines)
    return 0
