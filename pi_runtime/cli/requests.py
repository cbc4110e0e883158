"""`clue-pi requests`: the requests and their states."""

from __future__ import annotations

import argparse

from pi_runtime.cli.common import open_runtime, show
from pi_runtime.store import Request

ABOUT = "show the requests and the generations of weights"
EXAMPLE = "clue-pi requests cifar.clue"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--request", type=int, metavar="ID", help="only this one, with all that is known")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        store = runtime.store
        if options.request is not None:
            row = store.request(options.request).as_dict()
            show(options, row, [f"{key}: {value}" for key, value in row.items() if value is not None])
            return 0
        requests = store.requests()
        made = {one.request_id: one.id for one in store.generations() if one.request_id is not None}
    result = [{**request.as_dict(), "generation": made.get(request.id)} for request in requests]
    lines = [_line(request, made.get(request.id)) for request in requests]
    show(options, result, lines or ["no requests so far"])
    return 0


def _line(request: Request, generation: int | None) -> str:
    parts = [f"request {request.id}: forget {request.about}, {request.status}"]
    if request.reason:
        parts[0] += f" ({request.reason})"
    if generation is not None:
        parts.append(f"generation {generation}")
    if request.sealed is not None:
        parts.append("sealed")
    elif request.seal_began is not None:
        parts.append("sealing is not finished")
    if request.rolled_back is not None:
        parts.append("without effect: rolled back")
    return ", ".join(parts)
