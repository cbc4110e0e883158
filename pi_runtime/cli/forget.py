"""`clue-pi forget`: forget a class with its stored samples."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from pi_runtime.cli.common import cancel_on_interrupt, open_runtime, power_arguments, show, told
from pi_runtime.errors import ClueError
from pi_runtime.progress import ProgressLine

ABOUT = "forget a class with its stored samples"
EXAMPLE = "clue-pi forget cifar.clue --label dog"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--label", required=True, metavar="CLASS", help="name or index")
    parser.add_argument("--seed", type=int, metavar="N", help="for the same result again (default: drawn)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=X", help="a scalar of the method, may be repeated"
    )
    parser.add_argument(
        "--at-most", type=float, metavar="P", help="percent that the forget accuracy must come down to"
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what it would take, change nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    power_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    scalars = dict(_scalar(text) for text in options.set)
    with open_runtime(options, options.paths) as runtime:
        if options.dry_run:
            plan = runtime.dry_run(options.label, scalars=scalars)
            show(options, plan, [f"{key}: {value}" for key, value in plan.items()])
            return 0
        bundle = runtime.bundle
        if bundle.batch != bundle.tuned_batch and not options.quiet:
            print(
                f"clue-pi: note: {bundle.method} was tuned at batch {bundle.tuned_batch}, "
                f"this bundle has batch {bundle.batch}",
                file=sys.stderr,
            )
        line = None if options.quiet else ProgressLine(sys.stderr)
        with cancel_on_interrupt() as cancelled:
            result = runtime.forget(
                options.label,
                seed=options.seed,
                scalars=scalars,
                verify_at_most=options.at_most,
                progress=line,
                cancel=cancelled,
            )
        if line is not None:
            line.close()
        show(options, dataclasses.asdict(result), told(result.status, result.reason, result.evidence))
    return {"done": 0, "failed": 1}.get(result.status, 130)


def _scalar(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    try:
        if not (name and separator):
            raise ValueError
        return name, float(value)
    except ValueError:
        raise ClueError(f"--set {text!r}: write NAME=NUMBER, such as lr=0.001") from None
