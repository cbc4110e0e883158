"""The command line `clue-pi`; a file for each command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pi_runtime.cli import (
    add,
    bench,
    calibrate,
    cancel,
    check,
    forget,
    log,
    predict,
    receipts,
    requests,
    resume,
    retry,
    rollback,
    samples,
    seal,
    tune_kernels,
    verify,
)
from pi_runtime.cli import run as run_queue
from pi_runtime.errors import ClueError, printable
from pi_runtime.images import MAX_PIXELS

# A command is a module: ABOUT, EXAMPLE, IMAGES (whether it takes images after the bundle), arguments(parser)
# and run(options) -> exit code; STANDALONE where it needs neither bundle nor store. The order is the help's.
COMMANDS = {
    "add": add,
    "samples": samples,
    "forget": forget,
    "run": run_queue,
    "requests": requests,
    "cancel": cancel,
    "resume": resume,
    "retry": retry,
    "rollback": rollback,
    "seal": seal,
    "predict": predict,
    "log": log,
    "receipts": receipts,
    "verify": verify,
    "check": check,
    "calibrate": calibrate,
    "bench": bench,
    "tune-kernels": tune_kernels,
}

_BUNDLE = (
    "BUNDLE is a .clue folder; left out, it is CLUE_BUNDLE or the bundle that the current folder belongs to."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    0: done. 1: the request failed its checks, or a golden check failed. 2: an error, told in one line.
    3: paused. 130: cancelled.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except ClueError as error:
        print(f"clue-pi: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output went away (clue-pi log | head): nothing to tell, and nobody to tell it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clue-pi", description="Let an image classifier forget a class, on this device and offline."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        about, standalone = module.ABOUT, getattr(module, "STANDALONE", False)
        added = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}." + ("" if standalone else f" {_BUNDLE}"),
            epilog=f"example: {module.EXAMPLE}",
        )
        if not standalone:
            _common(added, module.IMAGES)
        added.add_argument("--json", action="store_true", help="print the result as JSON")
        module.arguments(added)
        added.set_defaults(command=module.run)
    return parser


def _common(added: argparse.ArgumentParser, images: bool) -> None:
    """The bundle, the images where the command takes them, and what opens the runtime."""
    if images:
        added.add_argument(
            "paths",
            nargs="+",
            type=Path,
            metavar="[BUNDLE] IMAGES",
            help="image files, folders of them, .npz archives (x or images, and maybe y)",
        )
        added.add_argument(
            "--max-pixels",
            type=int,
            default=MAX_PIXELS,
            metavar="N",
            help=f"refuse images of more pixels (default: {MAX_PIXELS:,}; decoding takes 7 bytes each)",
        )
        added.add_argument(
            "--skip-unreadable",
            action="store_true",
            help="go on after image files that cannot be read, and name them",
        )
    else:
        added.add_argument("paths", nargs="?", type=Path, metavar="BUNDLE", help="the bundle's folder")
    added.add_argument("--store", type=Path, metavar="DIR", help="folder of samples, weights and records")
    added.add_argument("--threads", type=int, metavar="N", help="threads (default: all processors)")
    added.add_argument("--engine", metavar="NAME", help="onnx or litert (default: the first that can)")
    added.add_argument(
        "--trust",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="refuse bundles that no public key in this file has signed (may be repeated; README)",
    )
    added.add_argument(
        "--policy",
        default="refuse",
        metavar="NAME",
        help="a new bundle that brings back what was forgotten: refuse (default), serve, pending (it "
        "is forgotten again)",
    )
