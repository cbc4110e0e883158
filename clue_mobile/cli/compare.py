"""`clue-mobile compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clue_mobile.cli.common import (
    DataOption,
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
from clue_mobile.errors import ClueError, unknown

if TYPE_CHECKING:
    from clue_mobile.study.compare import Study

HELP = (
    "Compare unlearning methods over forget classes and seeds with the original and the retrained model.\n\n"
    "Each run has a process of its own and one line in OUT/results.jsonl; a run that stands there is not "
    "repeated, so an interrupted comparison goes on where it was. Tables and pictures are written to OUT.\n\n"
    "Example: clue-mobile compare --model digits_cnn --data digits --methods all --classes 3 --seeds 5 --out "
    "digits_table"
)


def command(
    model: Annotated[
        str, typer.Option(help="As `clue-mobile export` takes it; see `clue-mobile models`.")
    ] = "digits_cnn",
    data: DataOption = "digits",
    out: Annotated[Path, typer.Option(help="Folder of results, weights, tables.")] = Path("compare_out"),
    methods: Annotated[
        str,
        typer.Option(
            help="all, or names with commas: ga,clue; also METHOD:VARIANT of --hyperparameters, or your own "
            "file.py."
        ),
    ] = "all",
    classes: Annotated[
        str, typer.Option(help="The classes to forget, one after the other: names or indices, or all.")
    ] = "0",
    seeds: Annotated[
        int, typer.Option(help="Runs of each method and class, with seeds 0, 1, ...", min=1)
    ] = 1,
    weights: Annotated[
        Path | None,
        typer.Option(help="The original's. [default: trained first, and kept in OUT]", show_default=False),
    ] = None,
    retrained: Annotated[
        list[str] | None,
        typer.Option(
            help="CLASS=PATH (repeatable): weights trained without it. [default: trained for each seed]",
            show_default=False,
        ),
    ] = None,
    training: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE (repeatable): how original and retrained models are trained, such as epochs=30.",
            show_default=False,
        ),
    ] = None,
    original_per_seed: Annotated[
        bool, typer.Option("--original-per-seed", help="Train an original for each seed, not once.")
    ] = False,
    hyperparameters: Annotated[
        Path | None,
        typer.Option(help='JSON {"METHOD": {"lr": 0.01}}; METHOD:VARIANT adds one.', show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples in a step.", min=1)] = 256,
    forget_images: Annotated[
        str,
        typer.Option(
            help="How many images of the class a method is told to forget, drawn with the seed: a number, "
            "all, or several with commas: 10,50,all. UA stays that of all training images of the class."
        ),
    ] = "all",
    forget_from: Annotated[
        str,
        typer.Option(
            help="Where these images come from: train, test (like a user's own photos, which the model never "
            "saw), or train,test."
        ),
    ] = "train",
    retain_images: Annotated[
        str,
        typer.Option(
            help="On how many training images of the other classes RA and the attacks are measured: a number "
            "(drawn once, the same for all runs; most of a short run's time is evaluation), or all."
        ),
    ] = "all",
    card: Annotated[
        Path | None, typer.Option(help="A model card, JSON: classes, input_shape, ...", show_default=False)
    ] = None,
    validation: ValidationOption = None,
    jobs: Annotated[int, typer.Option(help="Runs at once.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run.", min=1)] = 1,
    on: Annotated[
        str, typer.Option(help="processes, ray (this machine), ray:ADDRESS, or here (for a debugger).")
    ] = "processes",
    cell_seconds: Annotated[
        float | None, typer.Option(help="End a run after this long; it is then failed.", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Repeat runs that failed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs, say how long they may take, and stop.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Only make tables and pictures of what is in OUT.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP. Failed runs are told in the tables; exit code 1 where every run of a method failed."""
    if report_only:
        _report_only(out, as_json)
        return
    from clue_mobile import models
    from clue_mobile.study import compare, defaults
    from clue_mobile.study.tasks import Setting

    if cell_seconds is not None and not cell_seconds > 0:
        raise ClueError(f"--cell-seconds must be above 0, not {cell_seconds}")
    spec = models.resolve_spec(model, weights=weights, card=card)
    labels = _labels(classes, spec.classes)
    given = {**defaults.embedded(spec), **(defaults.read(hyperparameters) if hyperparameters else {})}
    setting = Setting(spec, data, validation)
    study = compare.Study(
        setting, out, compare.choose(methods, given), labels, tuple(range(seeds)), given, batch, weights,
        _retrained(retrained or [], spec.classes, labels), settings(training or []), original_per_seed,
        threads, cell_seconds, retry_failed, _sources(forget_from),
        _numbers(forget_images), _number(retain_images, "--retain-images must be a number above 0 or all"),
    )  # fmt: skip
    dataset = load_data(data, spec, validation, as_json)
    if dry_run:
        _dry_run(study, dataset, jobs, as_json)
        return
    with bar("compare", as_json) as tell:

        def told(done: int, total: int, text: str) -> None:
            tell(done, total, text)
            note(f"{done}/{total} {text}", as_json)

        rows = compare.run(study, dataset, on, jobs, told)
    _report(rows, out, spec.classes, as_json)
    every = {(row["method"], row["variant"]) for row in rows}
    if every - {(row["method"], row["variant"]) for row in rows if row["status"] == "done"}:
        raise typer.Exit(1)


def _report_only(out: Path, as_json: bool) -> None:
    from clue_mobile.report.comparison import newest
    from clue_mobile.study.compare import ordered
    from clue_mobile.study.results import Results

    rows = ordered(newest(Results(out).rows()))
    if not rows:
        raise ClueError(f"there are no results in {out}: run the comparison without --report-only first")
    _report(rows, out, rows[0]["classes"], as_json)


def _report(rows: list[dict[str, Any]], out: Path, classes: Any, as_json: bool) -> None:
    from clue_mobile.report import comparison_files, comparison_text
    from clue_mobile.report.comparison import comparisons

    found = comparisons(rows)
    written = comparison_files.write(out, found, classes)
    if as_json:
        print_json({"tables": comparison_text.to_json(found), "files": [str(path) for path in written]})
        return
    shown = console()
    for each in found:
        for table in comparison_text.to_rich(each, shown.width):
            shown.print(table)
        for line in comparison_text.beside(each):
            print(f"- {line}")
    print(f"\nwritten to {out}: {', '.join(path.name for path in written)}")


def _dry_run(study: Study, dataset: Any, jobs: int, as_json: bool) -> None:
    from clue_mobile.study import compare

    todo = compare.plan(study, dataset)
    states, seconds = compare.estimate(study, todo.cells, jobs)
    open_ = sum(state == "to do" for _, state in states)
    if as_json:
        cells = [{**vars(cell), "key": cell.key, "state": state} for cell, state in states]
        train = [str(path) for path in todo.training]
        print_json({"cells": cells, "to_do": open_, "seconds": seconds, "to_train": train})
        return
    for path in todo.training:
        print(f"original: to train, {path}")
    for cell, state in states:
        name = cell.method + (f":{cell.variant}" if cell.variant else "")
        print(f"{name}, class {study.setting.spec.classes[cell.forget_class]}, seed {cell.seed}: {state}")
    time = "no finished run to estimate from" if seconds is None else f"about {seconds:,.0f} s"
    print(f"{open_} of {len(states)} runs to do, {jobs} at once: {time}")


def _labels(text: str, classes: tuple[str, ...]) -> tuple[int, ...]:
    words = list(classes) if text == "all" else [word.strip() for word in text.split(",")]
    return tuple(dict.fromkeys(class_label(word, classes) for word in words))


def _sources(text: str) -> tuple[str, ...]:
    words = dict.fromkeys(word.strip() for word in text.split(","))
    for word in words:
        if word not in ("train", "test"):
            raise unknown("source of forget images", word, ("train", "test"))
    return tuple(words)


def _numbers(text: str) -> tuple[int | None, ...]:
    words = dict.fromkeys(word.strip() for word in text.split(","))
    right = "--forget-images must be numbers above 0 or all, such as 10,50,all"
    return tuple(_number(word, right) for word in words)


def _number(word: str, right: str) -> int | None:
    if word != "all" and not (word.isdecimal() and int(word) > 0):
        raise ClueError(f"{right}, not {word!r}")
    return None if word == "all" else int(word)


def _retrained(pairs: list[str], classes: tuple[str, ...], labels: tuple[int, ...]) -> dict[int, Path]:
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals and len(labels) == 1:
            found[labels[0]] = Path(pair)
            continue
        if not equals:
            raise ClueError(f"--retrained {pair}: with several classes write CLASS=PATH")
        found[class_label(name, classes)] = Path(path)
    return found
