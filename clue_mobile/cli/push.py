"""`clue-mobile push`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from clue_mobile.cli.common import BundleArgument, JsonOption, bar, note, print_json
from clue_mobile.errors import ClueError

HELP = (
    "Copy a bundle to a Raspberry Pi over ssh and, with --install, install the runtime there. A copy that "
    "broke off goes on where it was; the bundle on the device is replaced in one step, once every file is "
    "there.\n\n"
    "Example: clue-mobile push pi@raspberrypi.local cifar.clue --install"
)


def command(
    host: Annotated[
        str, typer.Argument(help="USER@HOST, or a name of ssh's configuration.", show_default=False)
    ],
    bundle: BundleArgument,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="ssh's port.", show_default=False)
    ] = None,
    folder: Annotated[str, typer.Option(help="The folder on the device, in the home folder.")] = "clue",
    install: Annotated[
        bool, typer.Option("--install", help="Run the bundle's runtime/install.sh there afterwards.")
    ] = False,
    install_option: Annotated[
        list[str] | None,
        typer.Option(help="An option for install.sh (repeatable), such as --litert.", show_default=False),
    ] = None,
    ssh_option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for ssh -o (repeatable), such as IdentityFile=key.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See HELP. Exit code 1 where the bundle is there but the installation failed."""
    from clue_mobile.push import push

    if install_option and not install:
        raise ClueError("--install-option is for --install: give both")
    with bar("push", as_json) as tell:
        pushed = push(
            bundle,
            host,
            folder=folder,
            port=port,
            ssh_options=ssh_option or (),
            install=(install_option or []) if install else None,
            progress=tell,
        )
    if as_json:
        print_json(dataclasses.asdict(pushed))
    else:
        print(f"{host}:{pushed.path}: {pushed.sent / 2**20:.1f} MiB sent, every file compared")
    if pushed.installed:
        note(f"install.sh ended with {pushed.installed} (its message is above); the bundle is there", as_json)
        raise typer.Exit(1)
