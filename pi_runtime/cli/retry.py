"""`clue-pi retry`: a request like one that has ended, with another seed."""

from __future__ import annotations

import argparse

from pi_runtime.cli.common import show
from pi_runtime.cli.running import priority_arguments, request_argument, run_one, running

ABOUT = "repeat a request that has ended, with another seed"
EXAMPLE = "clue-pi retry cifar.clue 3"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    request_argument(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="for the same result again (default: drawn)")
    parser.add_argument("--queue", action="store_true", help="only queue it: clue-pi run runs it")
    priority_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with running(options, options.paths) as runtime:
        request_id = runtime.retry(options.request, options.seed)
        if options.queue:
            show(options, {"id": request_id, "status": "queued"}, [f"request {request_id} is queued"])
            return 0
        return run_one(
            options,
            lambda line, cancelled, stopped: runtime.run(
                request_id, progress=line, cancel=cancelled, stop=stopped
            ),
        )
