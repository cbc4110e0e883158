"""`clue-pi verify`: check a receipt; needs neither the bundle nor the store."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

from pi_runtime.cli.common import show
from pi_runtime.errors import ClueError
from pi_runtime.files import sha256_file
from pi_runtime.receipts import check

ABOUT = "check a receipt and say what it proves and what not"
EXAMPLE = "clue-pi verify receipts/000002.json --chain receipts --key receipt.pub"
IMAGES = False
STANDALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("receipt", type=Path, metavar="RECEIPT", help="a receipt's file")
    parser.add_argument("--chain", type=Path, metavar="DIR", help="folder of all receipts of that device")
    parser.add_argument("--key", metavar="KEY", help="the device's public key in hex, or its receipt.pub")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights that should be the receipt's")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    verdict = check.check(
        _content(options.receipt),
        key=None if options.key is None else _key(options.key),
        chain=None if options.chain is None else check.read_folder(options.chain),
        weights=None if options.weights is None else sha256_file(options.weights),
    )
    if verdict.problem is not None:
        lines = [f"{options.receipt} does NOT hold: {verdict.problem}."]
    else:
        lines = [f"{options.receipt} holds."]
        parts = {"Proven:": verdict.proven, "Stated by the device:": verdict.stated}
        for heading, sentences in (*parts.items(), ("Not proven:", verdict.not_proven)):
            lines += [heading, *(f"- {sentence}" for sentence in sentences)]
    show(options, {"holds": verdict.problem is None, **dataclasses.asdict(verdict)}, lines)
    return 0 if verdict.problem is None else 1


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClueError(f"cannot read the receipt {path}: {error.strerror}") from error


def _key(text: str) -> str:
    """A key in hex, or the content of a file with one."""
    path = Path(text)
    found = text.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}|04[0-9a-f]{128}", found) and path.is_file():
        found = path.read_text(encoding="ascii", errors="replace").strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}|04[0-9a-f]{128}", found):
        raise ClueError(
            f"--key {text!r} is no public key: give 64 hexadecimal digits (Ed25519), 130 (ES256), or the "
            "file receipt.pub that has them"
        )
    return found
