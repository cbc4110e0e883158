"""`clue-pi log`: the requests so far and their costs."""

from __future__ import annotations

import argparse
from typing import Any

from pi_runtime.cli.common import open_runtime, show, told

ABOUT = "show the requests so far and their costs"
EXAMPLE = "clue-pi log cifar.clue"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--requests", action="store_true", help="with --json: the requests, not the records")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        requests, records = runtime.store.requests(), runtime.log()
    lines = []
    for request in requests:
        outcome = told(request.status, request.reason, request.evidence)
        head = f"request {request.id}, {request.about}, {request.created}"
        lines.append(f"{head}: {'; '.join(outcome)}")
        for record in records:
            if record["request_id"] == request.id:
                lines.append(_cost_line(record))
    shown = [request.as_dict() for request in requests] if options.requests else records
    show(options, shown, lines or ["no requests so far"])
    return 0


def _cost_line(record: dict[str, Any]) -> str:
    p50 = record["step_ms"]["p50"]
    step = "" if p50 is None else f", {p50:.0f} ms a step"
    return (
        f"  {record['phase']}: {record['wall_s']:.1f} s, {record['steps']} steps{step}, "
        f"{record['peak_mem_bytes'] / 2**20:.0f} MiB"
    )
