"""What the commands of `clue-pi` share: the bundle, the store, output, Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pi_runtime import trust
from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError, printable
from pi_runtime.images import Reader, Source, batched
from pi_runtime.power import CHOICES, Choice
from pi_runtime.progress import Counter
from pi_runtime.runtime import Runtime

READ_AT_ONCE = 256  # image files decoded before they are stored or classified


def is_bundle(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def default_bundle() -> Path:
    """The bundle that is meant where none is named. Raises ClueError."""
    named = os.environ.get("CLUE_BUNDLE")
    if named:
        return Path(named)
    here = Path.cwd()
    # A bundle's runtime/ is inside the bundle.
    for folder in (here, here.parent):
        if is_bundle(folder):
            return folder
    raise ClueError("no bundle found: name its folder (it holds manifest.json) first, or set CLUE_BUNDLE")


def bundle_and_images(paths: list[Path]) -> tuple[Path, list[Path]]:
    if not is_bundle(paths[0]):
        return default_bundle(), paths
    if len(paths) == 1:
        raise ClueError(f"no images given, only the bundle {paths[0]}")
    return paths[0], paths[1:]


def _stores() -> Path:
    """The folder that the stores are in which no --store names."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "clue-pi"


def _default_store(bundle: Bundle) -> Path:
    return _stores() / (Path(bundle.name).name.lstrip(".") or "bundle")


def open_runtime(options: argparse.Namespace, path: Path | None) -> Runtime:
    trusted = [*options.trust, *trust.lists(options.store, _stores())]
    bundle = Bundle.open(path or default_bundle(), trusted=trusted)
    store = options.store or _default_store(bundle)
    power = power_choice(options)
    runtime = Runtime.for_bundle(
        bundle, store, threads=options.threads, engine=options.engine, policy=options.policy
    )
    runtime.power = power
    return runtime


def power_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of commands that measure energy (docs/cost.md)."""
    parser.add_argument(
        "--power", default="auto", metavar="SOURCE", help=f"energy by {', '.join(CHOICES)} (default: auto)"
    )
    parser.add_argument(
        "--power-command",
        metavar="CMD",
        help="a program that prints watts, a number a line, as long as it runs",
    )
    parser.add_argument(
        "--power-hz", type=float, metavar="HZ", help="samples a second (default: the source's)"
    )


def power_choice(options: argparse.Namespace) -> Choice:
    """Where the energy of a command comes from. Raises ClueError."""
    if not hasattr(options, "power"):
        return Choice()
    return Choice(options.power, options.power_command, options.power_hz)


class Images:
    """The images that a command was given, in groups; progress and unreadable files go to standard error."""

    def __init__(self, options: argparse.Namespace, paths: Sequence[Path], bundle: Bundle) -> None:
        self.skipped: list[str] = []
        self._told = self._skip if options.skip_unreadable else None
        self._reader = Reader(paths, bundle, options.max_pixels, self._told)

    def _skip(self, error: ClueError) -> None:
        self.skipped.append(str(error))
        print(f"clue-pi: skipped: {printable(error)}", file=sys.stderr)

    def __iter__(self) -> Iterator[Source]:
        done = 0
        with Counter("images", self._reader.files, sys.stderr) as tell:
            for source in batched(self._reader, READ_AT_ONCE):
                yield source
                done += len(source.images)
                tell(done)


def show(options: argparse.Namespace, result: object, lines: Sequence[str]) -> None:
    """Print a result as JSON or as lines of text."""
    print(json.dumps(result, indent=1) if options.json else "\n".join(lines))


def told(status: str, reason: str | None, evidence: Mapping[str, Any]) -> list[str]:
    lines = [f"{status}: {reason}" if reason else status]
    if "forget_accuracy_after" in evidence:
        before, after = evidence["forget_accuracy_before"], evidence["forget_accuracy_after"]
        lines.append(f"forget accuracy: {before:.1f} % before, {after:.1f} % after")
    for name, about in (("held_out", "held-out samples"), ("guard", "the other classes")):
        if found := evidence.get(name):
            before, after = found["accuracy_before"], found["accuracy_after"]
            lines.append(f"accuracy on {about}: {before:.1f} % before, {after:.1f} % after")
    if found := evidence.get("collapse"):
        lines.append(f"{found['kept']:.1f} % of {found['probes']} made-up images keep their class")
    if "epochs_run" in evidence:
        early = ", stopped early" if evidence["stopped_early"] else ""
        size = f"{evidence['samples']} samples, {evidence['epochs_run']} epochs{early}"
        lines.append(f"{size}, {evidence['steps']} steps")
    if status != "done":
        lines.append("the old weights are still served")
    return lines


@contextmanager
def cancel_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the request to end after the running operation; a second one interrupts it at once."""
    cancelled = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()
        print("\nclue-pi: cancelling after this step; the old weights stay", file=sys.stderr)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield cancelled.is_set
    finally:
        signal.signal(signal.SIGINT, before)
