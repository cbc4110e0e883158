"""`clue-mobile demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clue_mobile.cli.common import JsonOption, console, note, print_json

HELP = (
    "The whole path on real images in about a minute: train on scikit-learn's digits, export for the "
    "Raspberry Pi 5, forget one digit "
    "through the exported programs, compare with retraining, draw a picture.\n\n"
    "Example: clue-mobile demo --out demo_out --forget 3"
)


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("demo_out"),
    forget: Annotated[str, typer.Option(help="The digit to forget.")] = "3",
    seed: Annotated[int, typer.Option(help="Of training, request and attack.", min=0, max=2**31)] = 0,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile import report
    from clue_mobile.study.demo import run_demo

    result = run_demo(out, forget, seed, tell=lambda text: note(text, as_json))
    if as_json:
        print_json(
            {**report.to_json(result.rows), "picture": str(result.picture), "bundle": str(result.bundle)}
        )
        return
    console().print(report.to_rich(result.rows, title=f"scikit-learn digits: forgetting {forget!r}"))
    print(f"bundle:  {result.bundle}\nstore:   {result.store}\npicture: {result.picture}")
