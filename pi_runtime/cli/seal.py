"""`clue-pi seal`: make a request's effect final."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from pi_runtime.cli.common import open_runtime, show
from pi_runtime.errors import ClueError
from pi_runtime.store import SealPlan, Store

ABOUT = "erase for good what a request forgot: its samples, their keys, the weights from before it"
EXAMPLE = "clue-pi seal cifar.clue --request 1"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--request", type=int, required=True, metavar="ID", help="a request that is done")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be erased, change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        store = runtime.store
        plan = store.seal_plan(options.request)
        if options.dry_run:
            show(options, dataclasses.asdict(plan), ["would erase:", *_lines(plan)])
            return 0
        if not options.yes and not _confirmed(plan):
            print("clue-pi: nothing was erased", file=sys.stderr)
            return 130
        not_erased = _seal(store, options.request)
    left = [{"path": path, "reason": reason} for path, reason in not_erased]
    result = {"request": options.request, "sealed": True, "not_erased": left}
    lines = [f"request {options.request} is sealed"]
    lines += [f"not erased: {path} ({reason})" for path, reason in not_erased]
    show(options, result, lines)
    return 0


def _seal(store: Store, request_id: int) -> tuple[tuple[str, str], ...]:
    try:
        return store.seal(request_id, lambda step: print(f"clue-pi: {step}", file=sys.stderr))
    except KeyboardInterrupt:
        print("\nclue-pi: not finished; the next command goes on with the sealing", file=sys.stderr)
        raise


def _confirmed(plan: SealPlan) -> bool:
    if not sys.stdin.isatty():
        raise ClueError("sealing erases for good: look at --dry-run, then give --yes")
    print("sealing erases for good:", *_lines(plan), sep="\n", file=sys.stderr)
    print("seal it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _lines(plan: SealPlan) -> list[str]:
    lines = [f"  {plan.samples} samples and their keys"]
    if plan.later:
        lines.append(f"  (requests {', '.join(map(str, plan.later))} have some of them too)")
    lines += [f"  {file}" for file in plan.files]
    lines.append(f"  {plan.bytes / 2**20:.1f} MiB of files")
    if plan.class_samples:
        lines.append(f"stays: {plan.class_samples} other stored samples of the class")
    lines += [f"cannot be erased: {path} ({reason})" for path, reason in plan.not_erased]
    return lines
