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

from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError
from pi_runtime.runtime import Runtime

READ_AT_ONCE = 256  # image files decoded before they are stored or classified


def is_bundle(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def _default_bundle() -> Path:
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
        return _default_bundle(), paths
    if len(paths) == 1:
        raise ClueError(f"no images given, only the bundle {paths[0]}")
    return paths[0], paths[1:]


def _default_store(bundle: Bundle) -> Path:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "clue-pi" / (Path(bundle.name).name.lstrip(".") or "bundle")


def open_runtime(options: argparse.Namespace, path: Path | None) -> Runtime:
    bundle = Bundle.open(path or _default_bundle())
    store = options.store or _default_store(bundle)
    return Runtime.for_bundle(
        bundle, store, threads=options.threads, engine=options.engine, policy=options.policy
    )


def show(options: argparse.Namespace, result: object, lines: Sequence[str]) -> None:
    """Print a result as JSON or as lines of text."""
    print(json.dumps(result, indent=1) if options.json else "\n".join(lines))


def told(status: str, reason: str | None, evidence: Mapping[str, Any]) -> list[str]:
    lines = [f"{status}: {reason}" if reason else status]
    if "forget_accuracy_after" in evidence:
        before, after = evidence["forget_accuracy_before"], evidence["forget_accuracy_after"]
        lines.append(f"forget accuracy: {before:.1f} % before, {after:.1f} % after")
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
