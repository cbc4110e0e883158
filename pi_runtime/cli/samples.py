"""`clue-pi samples`: the stored samples."""

from __future__ import annotations

import argparse
import dataclasses
import json

from pi_runtime.cli.common import open_runtime, show
from pi_runtime.cli.ids import ranges

ABOUT = "show the stored samples"
EXAMPLE = "clue-pi samples cifar.clue --label dog"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--label", metavar="CLASS", help="the samples of this class, one by one")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        classes, store = runtime.bundle.classes, runtime.store
        if options.label is None:
            counts = store.counts()
            result = [{"class": classes[label], "samples": n} for label, n in counts.items()]
            lines = [
                f"{classes[label]}: {n} samples, ids {ranges(store.sample_ids(label))}"
                for label, n in counts.items()
            ]
            show(options, result, lines or ["no samples are stored"])
            return 0
        first = True
        # One by one: a list of a million need not fit the memory.
        for sample in store.listed(runtime.bundle.label(options.label)):
            name = classes[sample.label]
            if options.json:
                row = {**dataclasses.asdict(sample), "class": name}
                print("[" if first else ",", json.dumps(row))
            else:
                used = "" if sample.request_id is None else f", in request {sample.request_id}"
                print(f"{sample.id}: {name}, {sample.added}, {sample.sha256[:16]}{used}")
            first = False
        if options.json:
            print("[]" if first else "]")
    return 0
