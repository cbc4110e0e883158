"""`clue-mobile tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.cli.common import (
    DataOption,
    ForgetOption,
    JsonOption,
    ValidationOption,
    bar,
    class_label,
    console,
    load_data,
    note,
    print_json,
    settings,
)
from clue_mobile.errors import ClueError

HELP = (
    "Search a method's hyperparameters on validation images; the test images are never read.\n\n"
    "What is minimised is the mean of two distances, in points: the accuracy on validation images of the "
    "class from --target, and what the accuracy on those of the other classes lost. Interrupted, it goes on "
    "where it was.\n\n"
    "Example: clue-mobile tune --method clue --model digits_cnn --weights digits.safetensors --data digits "
    "--forget 4 --out digits_tuned, then clue-mobile export --hyperparameters digits_tuned/clue.json ..."
)


def command(
    data: DataOption,
    forget: ForgetOption,
    weights: Annotated[Path, typer.Option(help="The original's weights.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="As `clue-mobile export` takes it; see `clue-mobile models`.")
    ] = "digits_cnn",
    method: Annotated[str, typer.Option(help="One, or names with commas, or all.")] = "clue",
    out: Annotated[Path, typer.Option(help="Folder of the search and its result.")] = Path("tune_out"),
    trials: Annotated[int, typer.Option(help="Of each method, earlier ones in OUT counted.", min=1)] = 12,
    trial_seconds: Annotated[
        float, typer.Option(help="Processor time of a thread; a trial past it is ended and pruned.")
    ] = 90.0,
    target: Annotated[
        float, typer.Option(help="Wanted accuracy on the class, in percent.", min=0, max=100)
    ] = 0.0,
    hyperparameters: Annotated[
        Path | None,
        typer.Option(
            help='JSON {"METHOD": {"lr": 0.01}}: the first trial, and what is not searched.',
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="The same for one field, NAME=VALUE (repeatable).", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Samples in a step. [default: the hyperparameters', or 256]", show_default=False),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="A model card, JSON: classes, input_shape, ...", show_default=False)
    ] = None,
    validation: ValidationOption = None,
    seed: Annotated[int, typer.Option(help="Of the search and of the method.", min=0, max=2**20)] = 0,
    threads: Annotated[int, typer.Option(help="Threads of a trial.", min=1)] = 1,
    as_json: JsonOption = False,
) -> None:
    """See HELP. Exit code 1 where no trial of some method ended well."""
    from clue_mobile import models
    from clue_mobile.methods import METHODS
    from clue_mobile.study import defaults, spaces, tune
    from clue_mobile.study.tasks import Setting

    if not trial_seconds > 0:
        raise ClueError(f"--trial-seconds must be above 0, not {trial_seconds}")
    spec = models.resolve_spec(model, weights=weights, card=card)
    label = class_label(forget, spec.classes)
    given = {**defaults.embedded(spec), **(defaults.read(hyperparameters) if hyperparameters else {})}
    if method == "all":
        chosen = [name for name in METHODS if spaces.tunable(name)]
    else:
        chosen = [name for word in method.split(",") if spaces.space(name := word.strip())]
    setting = Setting(spec, data, validation, test=False)
    dataset = load_data(data, spec, validation, as_json)
    results: dict[str, tune.Found] = {}
    for name in chosen:
        fields = {**defaults.fields_of(name, given), **settings(set_ or [])}
        own_batch = fields.pop("batch", 256)
        search = tune.Search(
            setting, out, name, label, weights, fields, trials, trial_seconds, target, seed,
            own_batch if batch is None else batch, threads,
        )  # fmt: skip
        with bar(f"tune {name}", as_json) as tell:

            def told(done: int, total: int, text: str, name: str = name, tell: Any = tell) -> None:
                tell(done, total, text)
                note(f"{name} {done}/{total} {text}", as_json)

            results[name] = tune.run(search, dataset, told)
        written = tune.write(out, name, search.batch, results[name])
        if not as_json:
            _show(name, results[name], written)
    if as_json:
        print_json({name: vars(found) for name, found in results.items()})
    if any(found.best is None for found in results.values()):
        raise typer.Exit(1)


def _show(name: str, found: Any, written: list[Path]) -> None:
    from clue_mobile.report.grid import Table

    rows = [
        [
            str(row["number"]),
            *(
                "-" if row[key] is None else f"{row[key]:.2f}"
                for key in ("value", "forget", "retain", "seconds")
            ),
            row["reason"] or ", ".join(f"{key} {_short(value)}" for key, value in row["fields"].items()),
        ]
        for row in found.trials
    ]
    best = min((row["value"] for row in found.trials if row["value"] is not None), default=None)
    stressed = frozenset(
        at for at, row in enumerate(found.trials) if best is not None and row["value"] == best
    )
    headings = ("Trial", "Value", "Forget", "Retain", "Time (s)", "Hyperparameters")
    table = Table(f"Trials of {name} on validation images", headings, rows, stressed=stressed)
    console().print(table.to_rich())
    original = found.original
    print(f"original: forget {original['forget']:.2f} %, retain {original['retain']:.2f} %")
    print(f"written: {', '.join(map(str, written))}")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
