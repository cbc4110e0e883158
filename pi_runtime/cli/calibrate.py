"""`clue-pi calibrate`: the power of this device while it does nothing."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from pi_runtime.cli.common import cancel_on_interrupt, open_runtime, power_arguments, show
from pi_runtime.errors import ClueError
from pi_runtime.power import calibrate, open_source

ABOUT = "measure this device's idle power, which stands beside the energy of later requests"
EXAMPLE = "clue-pi calibrate cifar.clue --seconds 60"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="for so long (default: 30)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    power_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        opened = open_source(runtime.power)
        if opened.source is None:
            raise ClueError(
                f"this device has no source of power figures ({opened.reason}): see --power-command"
            )
        try:
            with cancel_on_interrupt() as cancelled:
                tell = None if options.quiet else _Telling(options.seconds)
                idle = calibrate.measure(opened.source, options.seconds, runtime.power.hz, tell, cancelled)
        finally:
            opened.close()
        path = idle.write(runtime.store.folder)
    lines = [
        f"{idle.idle_w:.3f} W idle by {idle.source} ({idle.scope}), {idle.kind}",
        f"{idle.samples} samples in {idle.seconds:.0f} s, median {idle.median_w:.3f} W, highest "
        f"{idle.highest_w:.3f} W, {idle.sampler_cpu_s:.2f} s of processor time for sampling",
        f"kept in {path}",
    ]
    if idle.busy is not None and idle.busy > calibrate.BUSY:
        lines.append(f"note: {idle.busy:.0%} of the processors were in use, so that this is not idle")
    show(options, dataclasses.asdict(idle), lines)
    return 0


class _Telling:
    """A line on standard error, each tenth of the time."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._told = seconds, 0

    def __call__(self, passed: float) -> None:
        share = int(10 * passed / self._seconds)
        if share > self._told:
            self._told = share
            print(f"clue-pi: {passed:.0f} of {self._seconds:.0f} s", file=sys.stderr)
