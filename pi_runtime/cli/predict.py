"""`clue-pi predict`: classify images."""

from __future__ import annotations

import argparse
from typing import Any

from pi_runtime import images
from pi_runtime.cli.common import READ_AT_ONCE, bundle_and_images, open_runtime, show

ABOUT = "classify images"
EXAMPLE = "clue-pi predict cifar.clue cat.jpg"
IMAGES = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--forgotten",
        default="tell",
        metavar="HOW",
        help="where the best class was forgotten: tell (answer it with forgotten: true, the default), hide "
        "(answer the best other class) or reject (answer none)",
    )
    parser.add_argument(
        "--hide", action="store_const", const="hide", dest="forgotten", help="the same as --forgotten hide"
    )


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    path, paths = bundle_and_images(options.paths)
    with open_runtime(options, path) as runtime:
        results: list[dict[str, Any]] = []
        for source in images.batched(images.read(paths, runtime.bundle), READ_AT_ONCE):
            answered = runtime.classify(source.images, options.forgotten)
            for name, answer in zip(source.names, answered, strict=True):
                odds = None if answer.probability is None else round(answer.probability, 6)
                results.append(
                    {
                        "image": name,
                        "class": answer.name,
                        "probability": odds,
                        "forgotten": answer.forgotten,
                    }
                )
    show(options, results, [_line(result) for result in results])
    return 0


def _line(result: dict[str, Any]) -> str:
    forgotten = " forgotten: true" if result["forgotten"] else ""
    if result["class"] is None:
        return f"{result['image']}: no class{forgotten}"
    return f"{result['image']}: {result['class']} {result['probability']:.3f}{forgotten}"
