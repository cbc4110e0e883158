"""`clue-pi receipts`: the receipts of the store."""

from __future__ import annotations

import argparse
import json

from pi_runtime.cli.common import open_runtime, show
from pi_runtime.receipts import told

ABOUT = "list the receipts so far"
EXAMPLE = "clue-pi receipts cifar.clue"
IMAGES = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    del parser  # it has none


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    with open_runtime(options, options.paths) as runtime:
        found = [json.loads(text) for text in runtime.store.receipts()]
        folder = runtime.store.folder / "receipts"
    lines = [told.headline(receipt) for receipt in found]
    if lines:
        lines.append(f"their files are in {folder}: clue-pi verify FILE checks one")
    show(options, found, lines or ["no receipts so far"])
    return 0
