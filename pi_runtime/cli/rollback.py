"""`clue-pi rollback`: let earlier weights serve again."""

from __future__ import annotations

import argparse
from typing import Any

from pi_runtime.cli.common import open_runtime, show
from pi_runtime.store import Generation, Request

ABOUT = "let kept weights serve again; without --to, show which there are"
EXAMPLE = "clue-pi rollback cifar.clue --to 1"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--to", type=int, metavar="ID", help="the generation that is to serve")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        store = runtime.store
        requests = {request.id: request for request in store.requests()}
        if options.to is None:
            generations = store.generations()
            shown = [_row(one) for one in generations]
            show(options, shown, [_line(one, requests) for one in generations])
            return 0
        lost = store.rollback(options.to)
    result = {"serving": options.to, "without_effect": lost}
    names = ", ".join(f"request {one} ({requests[one].about})" for one in lost)
    show(
        options,
        result,
        [f"generation {options.to} serves", f"without effect now: {names or 'no request'}"],
    )
    return 0


def _row(one: Generation) -> dict[str, Any]:
    names = ("id", "request_id", "parent", "sha256", "created", "erased", "serving")
    return {name: getattr(one, name) for name in names}


def _line(one: Generation, requests: dict[int, Request]) -> str:
    origin = "weights of the bundle"
    if one.request_id is not None:
        origin = f"request {one.request_id} ({requests[one.request_id].about}) on generation {one.parent}"
    state = ", serves" if one.serving else ", erased" if one.erased else ""
    return f"generation {one.id}: {origin}, {one.created}{state}"
