"""`clue-mobile evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clue_mobile.cli.common import (
    BundleArgument,
    DataOption,
    ForgetOption,
    JsonOption,
    ThreadsOption,
    ValidationOption,
    bar,
    console,
    load_data,
    print_json,
)
from clue_mobile.errors import ClueError

WIDEST = 20  # classes of a confusion matrix on a terminal; --json and --html have it whole

HELP = (
    "Measure UA, RA, TA and MIA of the original, the served and (given its weights) the retrained model, "
    "by the exported programs.\n\n"
    "Example: clue-mobile evaluate cifar.clue --data cifar10_images.zip --forget airplane --store "
    "cifar.store "
    "--retrained without_airplane.safetensors --deep --html result.html"
)


def command(
    bundle: BundleArgument,
    data: DataOption,
    forget: ForgetOption,
    store: Annotated[
        Path | None, typer.Option(help="The store whose served weights are measured too.", show_default=False)
    ] = None,
    retrained: Annotated[
        Path | None,
        typer.Option(help="Weights trained without the class: the reference row.", show_default=False),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write energies and per-class accuracies as a PNG.", show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown.", show_default=False)
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also three attacks, energies, a linear probe, the relearn cost, each class and the "
            "confusion matrix, with the model built again in PyTorch: what tells forgetting from hiding.",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write tables, picture and results as one HTML file.", show_default=False),
    ] = None,
    float16: Annotated[
        bool, typer.Option("--float16", help="Predict in float16, by the program of --float16-predict.")
    ] = False,
    validation: ValidationOption = None,
    seed: Annotated[
        int, typer.Option(help="Of the membership attack's subsample.", min=0, max=2**32 - 1)
    ] = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile import report
    from clue_mobile.study.evaluate import evaluate_bundle
    from pi_runtime.bundle import Bundle

    if picture is not None and store is None:
        raise ClueError("--picture of before and after needs --store, the folder that forget wrote")
    opened = Bundle.open(bundle)
    label = opened.label(forget)
    dataset = load_data(data, opened, validation, as_json)
    with bar("evaluate", as_json) as tell:
        found = evaluate_bundle(
            opened,
            dataset,
            label,
            store=store,
            retrained=retrained,
            seed=seed,
            threads=threads,
            energies=picture is not None or (html is not None and store is not None),
            deep=deep,
            program="predict_float16" if float16 else "predict",
            progress=lambda name, done, total: tell(done, total, name),
        )
    if picture is not None:
        found.draw(picture)
    if markdown is not None:
        from clue_mobile.models.weights import write_atomic

        write_atomic(markdown, report.to_markdown(found.rows).encode())
    if html is not None:
        words = f"The bundle {opened.name} on the images of {data}; random draws with seed {seed}."
        found.write_report(html, opened.name, [words])
    if as_json:
        print_json({"bundle": str(bundle), "forget": opened.classes[label], **found.to_json()})
    else:
        out = console()
        out.print(report.to_rich(found.rows, title=f"{opened.name}: forgetting {opened.classes[label]}"))
        for table in found.deep_tables(widest=WIDEST):
            out.print(table.to_rich())
            if table.note:
                out.print(f"{table.note}\n", style="dim")
        if picture is not None:
            print(f"picture: {picture}")
        if html is not None:
            print(f"report: {html}")
