"""`clue-pi run`: run what is queued, once or as a service."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys

from pi_runtime.cli.running import asked_to_stop, outcome, priority_arguments, running
from pi_runtime.errors import ClueError
from pi_runtime.forget import RequestResult
from pi_runtime.progress import ProgressLine
from pi_runtime.queue import Told, serve
from pi_runtime.request import Progress

ABOUT = "run what is queued or was interrupted; with --watch wait for more"
EXAMPLE = "clue-pi run cifar.clue --watch --nice 10"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--watch", action="store_true", help="go on until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--poll", type=float, default=1.0, metavar="S", help="look each S seconds (default: 1)"
    )
    priority_arguments(parser)


class _Line:
    """A progress line of its own for each request."""

    def __init__(self) -> None:
        self.line: ProgressLine | None = None

    def __call__(self, progress: Progress) -> None:
        if self.line is None:
            self.line = ProgressLine(sys.stderr)
        self.line(progress)

    def end(self) -> None:
        if self.line is not None:
            self.line.close()
        self.line = None


def run(options: argparse.Namespace) -> int:
    """Serve the queue; returns the exit code: 0 also after a signal, 1 when a request failed or broke."""
    if not 0.05 <= options.poll <= 3600:
        raise ClueError(f"--poll {options.poll:g}: it must be from 0.05 to 3600 seconds")
    line, bad = _Line(), []

    def result(ended: RequestResult) -> None:
        line.end()
        if ended.status == "failed":
            bad.append(ended.id)
        if options.json:
            print(json.dumps(dataclasses.asdict(ended)), flush=True)
        else:
            print(f"request {ended.id}: {'; '.join(outcome(ended))}", flush=True)

    def problem(request_id: int, sentence: str) -> None:
        line.end()
        bad.append(request_id)
        print(f"clue-pi: request {request_id}: {sentence}", file=sys.stderr, flush=True)

    told = Told(None if options.quiet else line, result, problem)
    with (
        asked_to_stop(signal.SIGTERM, signal.SIGINT) as stopped,
        running(options, options.paths) as runtime,
    ):
        serve(runtime, told, stopped, options.watch, options.poll)
        return 1 if bad and not options.watch else 0
