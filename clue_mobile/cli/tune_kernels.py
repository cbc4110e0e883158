"""`clue-mobile tune-kernels`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clue_mobile.cli.common import JsonOption, bar, note, print_json
from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from clue_mobile.kernel_costs.candidates import Product
    from clue_mobile.spec import ModelSpec
    from exporters.base import Exporter

HELP = (
    "Measure which form of each convolution is fastest, on this machine or (--bundle-only) on a device.\n\n"
    "Example: clue-mobile tune-kernels resnet20 --runtime onnx --batch 32 --threads 1 --out costs.json, then "
    "clue-mobile export --model resnet20 --kernel-costs costs.json"
)


def command(
    model: Annotated[
        list[str], typer.Argument(help="Models, as `export --model` takes them.", show_default=False)
    ],
    runtime: Annotated[str, typer.Option(help="onnx, litert or executorch.")] = "onnx",
    batch: Annotated[int, typer.Option(help="Samples in one step on the device.")] = 32,
    threads: Annotated[int, typer.Option(help="Threads inside an operator.")] = 1,
    method: Annotated[str, typer.Option(help="The unlearning method whose programs are looked at.")] = "clue",
    input_shape: Annotated[
        str | None, typer.Option(help="channels,height,width.", show_default=False)
    ] = None,
    classes: Annotated[int, typer.Option(help="How many classes a model has that does not say it.")] = 10,
    seconds: Annotated[float, typer.Option(help="For each product of a shape.")] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The cost table to write; costs that it has already are not measured again. With "
            "--bundle-only the folder. [default: costs.json, or candidates]",
            show_default=False,
        ),
    ] = None,
    bundle_only: Annotated[
        bool,
        typer.Option(
            "--bundle-only",
            help="Write the candidates as a folder, for `clue-pi tune-kernels FOLDER` on the device.",
        ),
    ] = False,
    estimate: Annotated[
        str | None,
        typer.Option(
            help="Measure nothing, estimate for this processor (cortex-a76) from operations and memory "
            "traffic.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be measured, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    import exporters
    from clue_mobile import engines
    from clue_mobile.kernel_costs import candidates
    from pi_runtime import kernel_costs

    exporter = exporters.get(runtime)
    if estimate is not None and bundle_only:
        raise ClueError("--estimate needs no candidates on a device: leave --bundle-only out")
    if estimate is not None:
        products, _ = _products(model, method, batch, input_shape, classes, as_json)
        _estimate(estimate, runtime, exporter, products, threads, out or Path("costs.json"), as_json)
        return
    if not bundle_only:
        engine = engines.get(runtime, threads)
        path = out or Path("costs.json")
        records = kernel_costs.read_records(path) if path.exists() else []
        record = kernel_costs.record_of(records, engine)
    products, source = _products(model, method, batch, input_shape, classes, as_json)
    todo = list(products)
    if not bundle_only:
        todo = [each for each in products if each.key not in record.costs]
    if dry_run:
        _list(todo, as_json)
        return
    if bundle_only:
        folder = out or Path("candidates")
        with bar("candidates", as_json) as tell:
            notes = candidates.write(folder, runtime, exporter, todo, source, tell=tell)
        if as_json:
            print_json({"folder": str(folder), "candidates": [each.key for each in todo], "left_out": notes})
        else:
            print(f"{folder}: {len(todo)} products. Next, on the device: clue-pi tune-kernels {folder.name}")
            _tell_notes(notes)
        return
    notes = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "candidates"
        with bar("candidates", as_json) as tell:
            notes = candidates.write(folder, runtime, exporter, todo, source, tell=tell)
        _, found = kernel_costs.read_candidates(folder)
        with bar("measuring", as_json) as tell:
            kernel_costs.measure(
                found,
                engine,
                record,
                seconds=seconds,
                save=lambda: kernel_costs.write_records(path, records),
                tell=tell,
            )
    if as_json:
        print_json({"costs": str(path), "measured": [each.key for each in found], "record": record.to_json()})
        return
    for line in kernel_costs.summary([record]):
        print(line)
    print(f"{path}: {len(found)} products measured, {len(products) - len(todo)} known already")
    _tell_notes(notes)


def _estimate(
    name: str,
    runtime: str,
    exporter: Exporter,
    products: Sequence[Product],
    threads: int,
    out: Path,
    as_json: bool,
) -> None:
    from clue_mobile.kernel_costs.estimate import estimate
    from pi_runtime import kernel_costs

    with bar("estimating", as_json) as tell:
        made = estimate(name, runtime, exporter, products, tell, threads)
    records = kernel_costs.read_records(out) if out.exists() else []
    for known in records:
        if known.identity == made.identity:
            made.costs = {**known.costs, **made.costs}
    kept = [known for known in records if known.identity != made.identity]
    kernel_costs.write_records(out, [*kept, made])
    if as_json:
        print_json({"costs": str(out), "record": made.to_json()})
        return
    for line in kernel_costs.summary([made]):
        print(line)
    print(f"{out}: estimated for {name}, not measured")


def _products(
    names: Sequence[str], method: str, batch: int, input_shape: str | None, classes: int, quiet: bool
) -> tuple[list[Product], Any]:
    """The distinct products of all models, and the last model with its recipe."""
    from clue_mobile import methods, models, programs
    from clue_mobile.flat import FlatModel
    from clue_mobile.kernel_costs import candidates
    from exporters.base import Source

    found: dict[Product, None] = {}
    source = None
    for name in names:
        spec = _spec(name, input_shape, classes)
        model = FlatModel(models.load(spec, None), spec)
        recipe = programs.build(model, method, methods.configure(method, {}), batch)
        source = Source(model, recipe)
        steps = [program for program in recipe.programs if program.batch == batch]
        collected = candidates.collect(steps)
        note(f"{name}: {len(collected)} products of convolutions", quiet)
        found.update(dict.fromkeys(collected))
    if not found:
        raise ClueError(f"{', '.join(names)}: no convolution of two axes, so there is nothing to choose")
    return list(found), source


def _spec(name: str, input_shape: str | None, classes: int) -> ModelSpec:
    """Of a model that says no more than its name what only shapes depend on; pixels do not matter here."""
    from clue_mobile import models

    try:
        return models.resolve_spec(name, input_shape=input_shape)
    except ClueError:
        if input_shape is None:
            raise
        channels = input_shape.partition(",")[0]
        each = ",".join(["0.5"] * (int(channels) if channels.isdecimal() else 1))
        names = ",".join(f"class{number}" for number in range(classes))
        return models.resolve_spec(name, classes=names, input_shape=input_shape, mean=each, std=each)


def _list(todo: Sequence[Product], as_json: bool) -> None:
    if as_json:
        print_json({"would_measure": [{"product": each.key, "forms": each.forms} for each in todo]})
        return
    for each in todo:
        print(f"{each.key}: {', '.join(each.forms)}")
    print(f"{len(todo)} products, {sum(len(each.forms) for each in todo)} forms")


def _tell_notes(notes: Sequence[str]) -> None:
    for text in notes:
        note(f"left out: {text}")
