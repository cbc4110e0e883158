"""`clue-pi resume`: let a paused request go on."""

from __future__ import annotations

import argparse

from pi_runtime.cli.running import priority_arguments, request_argument, run_one, running

ABOUT = "let a paused request go on from its checkpoint, to the same bits"
EXAMPLE = "clue-pi resume cifar.clue 3"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    request_argument(parser)
    priority_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with running(options, options.paths) as runtime:
        return run_one(
            options,
            lambda line, cancelled, stopped: runtime.resume(
                options.request, progress=line, cancel=cancelled, stop=stopped
            ),
        )
