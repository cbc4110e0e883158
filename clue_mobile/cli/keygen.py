"""`clue-mobile keygen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clue_mobile.cli.common import JsonOption, print_json

HELP = (
    "Make the key pair of a publisher: `export --sign` signs bundles with the private key, devices that are "
    "given the public one (clue-pi --trust) refuse all others.\n\nExample: clue-mobile keygen publisher.pem"
)


def command(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; the public one: PATH.pub.")],
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile.bundle import signature

    public = signature.keygen(path)
    if as_json:
        print_json({"private": str(path), "public": str(public)})
        return
    print(f"{path}: the private key. Keep it secret, and off the devices.")
    print(f"{public}: the public key, for clue-pi --trust {public}")
