"""What the commands that run requests share: limits, priority, signals, progress, the way they end."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pi_runtime.cli.common import open_runtime, show, told
from pi_runtime.errors import ClueError
from pi_runtime.forget import RequestResult
from pi_runtime.guards import set_priority
from pi_runtime.options import MAX_CELSIUS, Options
from pi_runtime.progress import ProgressLine
from pi_runtime.request import Progress
from pi_runtime.runtime import Runtime

# done, failed its checks, paused, cancelled
EXIT_CODES = {"done": 0, "failed": 1, "paused": 3, "cancelled": 130}

_LIMITS = {
    "--max-seconds": (float, "S", "pause when a run has taken this long"),
    "--max-joules": (float, "J", "pause when a run has used this much energy (where it is measured)"),
    "--max-celsius": (float, "C", f"pause above this temperature (default: {MAX_CELSIUS:g})"),
    "--checkpoint-steps": (int, "N", "a checkpoint each N steps, besides those after each epoch"),
    "--stop-accuracy": (float, "P", "end the epochs once the forget accuracy is down to P percent"),
    "--stop-joules": (float, "J", "end the epochs once this much energy was used (where it is measured)"),
}


def limit_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that are frozen with a request."""
    for flag, (kind, metavar, about) in _LIMITS.items():
        parser.add_argument(flag, type=kind, metavar=metavar, help=about)


def limits(options: argparse.Namespace) -> Options:
    """The options that were given. Raises ClueError for a value out of range."""
    return Options(
        accuracy_at_most=options.at_most,
        **{name: getattr(options, name) for name in (flag[2:].replace("-", "_") for flag in _LIMITS)},
    )


def priority_arguments(parser: argparse.ArgumentParser) -> None:
    """How much of the computer a run may take."""
    parser.add_argument("--nice", type=int, metavar="N", help="priority: 19 gives way to everything else")
    parser.add_argument("--cpus", metavar="LIST", help="run on these processors only, such as 0-2")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def request_argument(parser: argparse.ArgumentParser) -> None:
    """The number of a request, after the bundle."""
    parser.add_argument("request", type=int, metavar="REQUEST", help="its number (clue-pi log shows it)")


@contextmanager
def running(options: argparse.Namespace, path: Path | None) -> Iterator[Runtime]:
    """The runtime with the priority that was asked for: set before the engine starts its threads."""
    set_priority(options.nice, options.cpus)
    with open_runtime(options, path) as runtime:
        yield runtime


@contextmanager
def asked_to_stop(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Whether one of the signals came; asked between steps. A second one is not waited with."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    before = [(each, signal.signal(each, note)) for each in signals]
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in before:
            signal.signal(each, handler)


def run_one(
    options: argparse.Namespace,
    run: Callable[[Callable[[Progress], None] | None, Callable[[], bool], Callable[[], bool]], RequestResult],
) -> int:
    """Run one request with progress, Ctrl-C (cancels) and SIGTERM (pauses); show how it ended."""
    from pi_runtime.cli.common import cancel_on_interrupt

    line = None if options.quiet else ProgressLine(sys.stderr)
    with cancel_on_interrupt() as cancelled, asked_to_stop(signal.SIGTERM) as stopped:
        result = run(line, cancelled, stopped)
    if line is not None:
        line.close()
    show(options, dataclasses.asdict(result), outcome(result))
    return EXIT_CODES[result.status]


def outcome(result: RequestResult) -> list[str]:
    """How a request ended, in lines."""
    lines = told(result.status, result.reason, result.evidence)
    if result.status == "paused":
        lines.append(f"clue-pi resume {result.id} goes on from here")
    return lines


def refuse_both(first: object, second: object, sentence: str) -> None:
    """Raise ClueError when two options exclude each other."""
    if first and second:
        raise ClueError(sentence)
