"""What the commands share: options, output, progress, and errors as one sentence."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.errors import ClueError, unknown
from clue_mobile.study import presets

BundleArgument = Annotated[Path, typer.Argument(help="The bundle folder, NAME.clue.", show_default=False)]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="Images: a folder of class folders (train/CLASS, test/CLASS), a .zip of such, an .npz, "
        "digits, or torchvision:NAME[:ROOT].",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ForgetOption = Annotated[
    str, typer.Option("--forget", help="The class to forget, by name or index.", show_default=False)
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help=f"Hyperparameters that were measured, under a name ({presets.listed()}); docs/compare.md has "
        "the figures.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Threads inside an operator. [default: all cores]", show_default=False)
]
ValidationOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Images per class held out of training for validation, where the data has none of its own. "
        "[default: a tenth]",
        show_default=False,
    ),
]


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, indent=1))


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console(markup=False, highlight=False)  # names in square brackets are no markup


@contextlib.contextmanager
def bar(title: str, quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error; the function yielded takes (done, total, note). Nothing is drawn off
    a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = Console(stderr=True)
    with Progress(
        *columns, console=shown, disable=quiet or not shown.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(title, total=None, note="")

        def tell(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield tell


def note(text: str, quiet: bool = False) -> None:
    """A line on standard error for people."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def settings(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` options; numbers become numbers. Raises ClueError for another form."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ClueError(f"{pair!r} is no setting: write NAME=VALUE, such as lr=0.0003")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


def scalars(pairs: list[str]) -> dict[str, float]:
    """`NAME=NUMBER` options. Raises ClueError for anything else."""
    found = settings(pairs)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ClueError(f"{name} must be a number, not {value!r}")
    return found


def load_data(source: str, bundle: Any, validation: int | None, quiet: bool) -> Any:
    """The data set at the input size and in the class order of a bundle or a ModelSpec."""
    from clue_mobile import data

    with bar("images", quiet) as tell:
        return data.load(
            source,
            input_shape=bundle.input_shape,
            classes=bundle.classes,
            validation_per_class=validation,
            progress=lambda done, total: tell(done, total, ""),
        )


def class_label(word: str, classes: tuple[str, ...]) -> int:
    """The number of the class that a word names, by name or index. Raises ClueError listing them."""
    if word in classes:
        return classes.index(word)
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    raise unknown("class", word, classes)
