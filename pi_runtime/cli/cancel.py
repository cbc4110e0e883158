"""`clue-pi cancel`: cancel a request, in whatever process it runs."""

from __future__ import annotations

import argparse

from pi_runtime.cli.common import open_runtime, show
from pi_runtime.cli.running import request_argument

ABOUT = "cancel a request; the old weights stay"
EXAMPLE = "clue-pi cancel cifar.clue 3"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    request_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        ended = runtime.cancel(options.request)
    status = "cancelled" if ended else "asked"
    what = "is cancelled" if ended else "was asked to end; the process that runs it does so after its step"
    show(options, {"id": options.request, "status": status}, [f"request {options.request} {what}"])
    return 0
