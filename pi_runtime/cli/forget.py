"""`clue-pi forget`: forget a class with its stored samples, or single samples."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pi_runtime.bundle import Bundle
from pi_runtime.cli.common import show
from pi_runtime.cli.running import limit_arguments, limits, priority_arguments, refuse_both, run_one, running
from pi_runtime.errors import ClueError

ABOUT = "forget a class with its stored samples, or samples by their ids"
EXAMPLE = "clue-pi forget cifar.clue --label dog"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--label", metavar="CLASS", help="name or index of a class: all its samples")
    what.add_argument("--samples", metavar="IDS", help="ids of samples, such as 3,5-9")
    parser.add_argument("--seed", type=int, metavar="N", help="for the same result again (default: drawn)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=X", help="a scalar of the method, may be repeated"
    )
    parser.add_argument(
        "--at-most", type=float, metavar="P", help="percent that the forget accuracy must come down to"
    )
    limit_arguments(parser)
    priority_arguments(parser)
    parser.add_argument("--queue", action="store_true", help="only queue it: clue-pi run runs it")
    parser.add_argument("--dry-run", action="store_true", help="tell what it would take, change nothing")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    scalars = dict(_scalar(text) for text in options.set)
    samples = None if options.samples is None else _ids(options.samples)
    asked: dict[str, Any] = {"label": options.label, "samples": samples, "scalars": scalars}
    refuse_both(options.queue, options.dry_run, "--queue and --dry-run exclude each other: give one of them")
    with running(options, options.paths) as runtime:
        if options.dry_run:
            plan = runtime.dry_run(**asked)
            show(options, plan, [f"{key}: {value}" for key, value in plan.items()])
            return 0
        _note_batch(options, runtime.bundle)
        asked |= {"seed": options.seed, "options": limits(options)}
        if options.queue:
            request_id = runtime.submit(**asked)
            show(options, {"id": request_id, "status": "queued"}, [f"request {request_id} is queued"])
            return 0
        return run_one(
            options,
            lambda line, cancelled, stopped: runtime.forget(
                **asked, progress=line, cancel=cancelled, stop=stopped
            ),
        )


def _note_batch(options: argparse.Namespace, bundle: Bundle) -> None:
    if bundle.batch != bundle.tuned_batch and not options.quiet:
        print(
            f"clue-pi: note: {bundle.method} was tuned at batch {bundle.tuned_batch}, "
            f"this bundle has batch {bundle.batch}",
            file=sys.stderr,
        )


def _scalar(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    try:
        if not (name and separator):
            raise ValueError
        return name, float(value)
    except ValueError:
        raise ClueError(f"--set {text!r}: write NAME=NUMBER, such as lr=0.001") from None


_MOST_IDS = 1_000_000


def _ids(text: str) -> list[int]:
    """The ids of a list such as 3,5-9, in this order. Raises ClueError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ClueError(f"--samples {text!r}: write ids and ranges, such as 3,5-9")
        ids = range(int(first), int(last or first) + 1)
        if len(found) + len(ids) > _MOST_IDS:
            raise ClueError(f"--samples {text!r}: that are more than {_MOST_IDS} ids")
        found.extend(ids)
    return found
