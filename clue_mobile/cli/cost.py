"""`clue-mobile cost`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.cli.common import JsonOption, ThreadsOption, bar, console, print_json

HELP = (
    "What a forget request costs against retraining the same model on the same runtime: latency and energy, "
    "the gains, and the times of the programs that they are made of.\n\n"
    "The programs are timed on this computer, or the times come from the device (clue-pi bench --json). A "
    "request's own log makes its latency a measured one. Retraining is a measured training step x its "
    "steps.\n\n"
    "Example: clue-mobile cost clue.clue ga.clue --samples 5000 --train-images 45000 --train-epochs 182 "
    "--out cost"
)


def command(
    bundles: Annotated[
        list[Path],
        typer.Argument(help="Bundles, one for each method.", metavar="BUNDLE...", show_default=False),
    ],
    samples: Annotated[int, typer.Option(help="Samples of the request.", show_default=False)],
    train_images: Annotated[
        int, typer.Option(help="Training images without the class, N of retraining.", show_default=False)
    ],
    train_epochs: Annotated[int, typer.Option(help="Epochs of retraining, E.", show_default=False)],
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="The log of a request (store folder, store.db or cost.jsonl), one for each bundle in their "
            "order; - for none.",
            show_default=False,
        ),
    ] = None,
    times: Annotated[
        list[Path] | None,
        typer.Option(
            help="What clue-pi bench --json wrote on the device, one for each bundle in their order, then "
            "one for the training bundle.",
            show_default=False,
        ),
    ] = None,
    train_bundle: Annotated[
        Path | None,
        typer.Option(
            help="The training bundle: written there when it does not exist, to be timed on the device too.",
            show_default=False,
        ),
    ] = None,
    train_batch: Annotated[
        int | None, typer.Option(help="Batch of retraining. [default: the bundle's]", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each program is timed.")] = 2.0,
    engine: Annotated[str | None, typer.Option(help="onnx or litert. [default: the first that can]")] = None,
    threads: ThreadsOption = None,
    power: Annotated[str, typer.Option(help="Source of energy: auto, pmic, hwmon, rapl, off.")] = "auto",
    power_command: Annotated[
        str | None, typer.Option(help="A program that prints watts, a number a line.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for cost.md, cost.json and cost.png.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile.errors import ClueError
    from clue_mobile.report import device_log
    from clue_mobile.study import cost
    from pi_runtime import engines
    from pi_runtime.bench import bench
    from pi_runtime.bundle import Bundle
    from pi_runtime.power import Choice, open_source

    opened = [Bundle.open(path) for path in bundles]
    setting = cost.Setting(samples, train_images, train_epochs, train_batch or opened[0].batch)
    logs = log or ["-"] * len(opened)
    if len(logs) != len(opened):
        raise ClueError(f"{len(opened)} bundles and {len(logs)} logs: give one --log for each, - for none")
    if times and len(times) != len(opened) + 1:
        raise ClueError(f"{len(opened)} bundles need {len(opened) + 1} --times, the training bundle's last")
    wholes = [None if name == "-" else _last(device_log.read(Path(name)), name) for name in logs]
    chosen = engines.choose(opened[0], engine, threads)
    with tempfile.TemporaryDirectory() as scratch, bar("cost", as_json) as tell:
        place = train_bundle or Path(scratch) / "train.clue"

        def told(what: str) -> None:
            tell(0, 0, what)

        if place.exists():
            training = Bundle.open(place)
        else:
            training = cost.train_bundle(opened[0], place, chosen.name, setting.train_batch, told)
        if training.method != cost.TRAIN or training.batch != setting.train_batch:
            raise ClueError(
                f"{place} is no training bundle of batch {setting.train_batch}: name another place"
            )
        everyone = [*opened, training]
        if times:
            read = [cost.read_times(path, each) for path, each in zip(times, everyone, strict=True)]
            timings, runtime = [each for each, _ in read], read[0][1]
            if any(other != runtime for _, other in read):
                raise ClueError("the --times are not of one runtime, version and thread count")
            reason = "the times hold no energy"
        else:
            source = open_source(Choice(power, power_command))
            source.close()  # a meter may be opened once only
            reason, timings = source.reason, []
            runtime = {"name": chosen.name, "version": chosen.version, "threads": chosen.threads}
            for each in everyone:
                again = open_source(Choice(power, power_command))
                try:
                    timings.append(bench(each, chosen, seconds=seconds, opened=again, tell=told))
                finally:
                    again.close()
    methods = tuple(
        cost.method_line(each, found, samples, whole)
        for each, found, whole in zip(opened, timings, wholes, strict=False)
    )
    busy = max((timing.busy or 0.0 for each in timings for timing in each), default=0.0)
    retrain = cost.retrain_line(timings[-1], setting)
    table = cost.CostTable(setting, runtime, retrain, methods, reason, busy)
    _show(table, out, as_json)


def _last(requests: list[Any], name: str) -> Any:
    from clue_mobile.errors import ClueError

    done = [request for request in requests if request.status == "done"]
    if not done:
        raise ClueError(f"{name} has no request that is done")
    return done[-1].whole


def _show(table: Any, out: Path | None, as_json: bool) -> None:
    import json

    from clue_mobile.models.weights import write_atomic
    from clue_mobile.report import cost_table
    from pi_runtime.bench import BUSY

    rows = [
        cost_table.CostRow(
            line.name, line.latency.value, line.latency.how, line.energy.value, line.energy.how,
            table.gain(line, "latency"), table.gain(line, "energy"), line.times, line.runs,
        )
        for line in (table.retrain, *table.methods)
    ]  # fmt: skip
    setting, runtime = table.setting, table.runtime
    caption = (
        f"{setting.samples:,} samples to forget; retraining: {setting.train_images:,} images, "
        f"{setting.train_epochs} epochs, batch {setting.train_batch}, {setting.train_steps:,} steps; "
        f"{runtime['name']} {runtime['version']}, threads: {runtime['threads']}"
    )
    note = (
        "saliency to train: measured time of a run in ms. *: extrapolated, the number of runs x these "
        "times, without an early stop; without *: the request's own record."
    )
    if table.busy > BUSY:
        note += f" Other programs used up to {table.busy:.0%} of the processors: the times are too long."
    if all(row.energy_j is None for row in rows):
        note += f" No energy was measured: {table.energy_reason}."
    shown = cost_table.to_table(rows, caption, note)
    data = cost_table.to_json(
        rows, setting=vars(setting), runtime=dict(runtime), busy=table.busy, energy_reason=table.energy_reason
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "cost.md", f"{caption}.\n\n{shown.to_markdown()}\n{note}\n".encode())
        write_atomic(out / "cost.json", (json.dumps(data, indent=1) + "\n").encode())
        cost_table.gains_picture(out / "cost.png", rows, caption)
    if as_json:
        print_json(data)
        return
    console().print(shown.to_rich())
    print(note)
    if out is not None:
        print(f"written: {out / 'cost.md'}, cost.json and cost.png")
