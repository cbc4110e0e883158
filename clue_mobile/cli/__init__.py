"""The command line: one file a command, each a thin wrapper over the library."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from clue_mobile.cli import (
    check,
    compare,
    cost,
    demo,
    evaluate,
    explain,
    export,
    forget,
    keygen,
    models,
    push,
    report,
    train,
    tune,
    tune_kernels,
)
from clue_mobile.errors import ClueError

_INTERRUPTED = 130

app = typer.Typer(
    name="clue-mobile",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help prints in half the time
    help="Export an image classifier with the means to forget a class on the device it runs on, and prove "
    "what it did.\n\n"
    "Example: clue-mobile export --model resnet20 --weights w.safetensors --target pi5 --out cifar.clue, "
    "then "
    "clue-mobile forget cifar.clue --data images.zip --forget airplane.",
)
for module in (
    export, check, push, forget, report, cost, evaluate, explain, compare, tune, tune_kernels, models, train,
    keygen, demo,
):  # fmt: skip
    app.command(name=module.__name__.rpartition(".")[2].replace("_", "-"), help=module.HELP)(module.command)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    """Options of the whole program."""
    if version:
        import clue_mobile

        print(f"clue-mobile {clue_mobile.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 the work ended badly, 2 bad input, 130 interrupted."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except ClueError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of our output went away: no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer turns Ctrl-C into this, and says nothing
            print("clue-mobile: interrupted; nothing was half written", file=sys.stderr)
        raise


def _fail(problem: str) -> NoReturn:
    print(f"clue-mobile: {' '.join(problem.split())}", file=sys.stderr)
    sys.exit(2)
