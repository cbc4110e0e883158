"""`clue-pi predict`: classify images."""

from __future__ import annotations

import argparse
from typing import Any

from pi_runtime.cli.common import Images, bundle_and_images, open_runtime, show
from pi_runtime.errors import ClueError, printable

ABOUT = "classify images"
EXAMPLE = "clue-pi predict cifar.clue cat.jpg"
IMAGES = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--hide", action="store_true", help="never answer with a forgotten class")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    import numpy as np

    path, paths = bundle_and_images(options.paths)
    with open_runtime(options, path) as runtime:
        classes, forgotten = runtime.bundle.classes, set(runtime.forgotten)
        hidden = np.array([options.hide and name in forgotten for name in classes])
        if hidden.all():
            raise ClueError("every class was forgotten: nothing is left to answer with --hide")
        results: list[dict[str, Any]] = []
        for source in Images(options, paths, runtime.bundle):
            logits = runtime.predict(source.images).astype(np.float64)
            logits[:, hidden] = -np.inf
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = odds / odds.sum(axis=1, keepdims=True)
            for name, row in zip(source.names, probabilities, strict=True):
                best = int(row.argmax())
                results.append(
                    {
                        "image": name,
                        "class": classes[best],
                        "probability": round(float(row[best]), 6),
                        "forgotten": classes[best] in forgotten,
                    }
                )
    lines = [
        f"{printable(r['image'])}: {r['class']} {r['probability']:.3f}"
        f"{' forgotten: true' if r['forgotten'] else ''}"
        for r in results
    ]
    show(options, results, lines)
    return 0
