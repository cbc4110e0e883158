"""`clue-mobile export`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.bundle.signature import signer
from clue_mobile.cli.common import (
    JsonOption,
    PresetOption,
    ValidationOption,
    bar,
    load_data,
    note,
    print_json,
    settings,
)
from clue_mobile.errors import ClueError
from clue_mobile.memory.amount import parse_bytes
from clue_mobile.methods import Samples
from clue_mobile.models.card import read_json
from clue_mobile.study import presets

HELP = (
    "Export a classifier and an unlearning method as a bundle that a device can run.\n\n"
    "Example: clue-mobile export --model resnet20 --weights resnet20.safetensors --target pi5 --out "
    "cifar.clue"
)


def command(
    model: Annotated[
        str,
        typer.Option(
            help="A name from `clue-mobile models`, torchvision:NAME, timm:NAME, package.module:factory or "
            "file.py:factory."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights, .safetensors or .pt/.pth.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The bundle to write. [default: MODEL.clue]", show_default=False)
    ] = None,
    target: Annotated[str, typer.Option(help="The device: android, ios, pi5 or host.")] = "pi5",
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this runtime (repeatable), or +NAME in addition to the target's. [default: android: "
            "executorch, onnx; ios: coreml, executorch, onnx; pi5: onnx, litert; host: onnx]",
            show_default=False,
        ),
    ] = None,
    train_only: Annotated[
        list[str] | None,
        typer.Option(
            help="Change only the parameters that match this pattern (repeatable), such as 'layer3.*'. "
            "[default: all]",
            show_default=False,
        ),
    ] = None,
    float16_predict: Annotated[
        bool,
        typer.Option(
            "--float16-predict",
            help="Also a program that predicts in float16 (onnx, coreml); `evaluate --float16` measures it.",
        ),
    ] = False,
    float16: Annotated[
        list[str] | None,
        typer.Option(
            help="This program of a request in float16, step or teacher (repeatable; onnx). ONNX Runtime "
            "computes in float16 on ARMv8.2 and newer, elsewhere it casts and is slower (docs/precision.md).",
            show_default=False,
        ),
    ] = None,
    cut_points: Annotated[
        int,
        typer.Option(
            help="So many variants of the step whose backward pass stops at a block boundary; a device runs "
            "one where the mask is empty below it, for the same result. Worth it only for very sparse masks "
            "(benchmarks/less_work)."
        ),
    ] = 0,
    method: Annotated[
        str | None,
        typer.Option(
            help="The unlearning method: ga, rl, be, bs, lu, unsir, clue or ssd. [default: the preset's, "
            "else clue]",
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="The training images, as `train` takes them, for a method whose bundle ships what it found "
            "there: ssd.",
            show_default=False,
        ),
    ] = None,
    validation: ValidationOption = None,
    guard_data: Annotated[
        str | None,
        typer.Option(
            help="Images that the model never saw, as `train` takes them (the test split, else all): some of "
            "every class go into the bundle, and a device refuses weights that do badly on them.",
            show_default=False,
        ),
    ] = None,
    guard_per_class: Annotated[int, typer.Option(help="Guard images of each class.")] = 8,
    guard_drop: Annotated[
        float, typer.Option(help="Points by which the accuracy on the guard images may fall.")
    ] = 20.0,
    kept_at_least: Annotated[
        float | None,
        typer.Option(
            help="Without guard images: percent of made-up images that new weights must take for the same "
            "class as the old ones; 0 checks nothing. [default: 30 for clue, the method it was measured for; "
            "else 0]"
        ),
    ] = None,
    hyperparameters: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file of the method's hyperparameters; they override --preset.", show_default=False
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One hyperparameter, NAME=VALUE (repeatable), such as lr=0.0003; it overrides the others.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples in one step on the device.")] = 32,
    tuned_batch: Annotated[
        int | None,
        typer.Option(
            help="The batch that lr and tau were chosen at. [default: the preset's, else --batch]",
            show_default=False,
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            help="Work a step's gradient out for this many samples at a time, which takes less memory; for "
            "frozen batch norm.",
            show_default=False,
        ),
    ] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            help="The most memory that a program may need by plan, such as 64MB or 48MiB: what does not fit "
            "is computed again in the backward pass.",
            show_default=False,
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="A model card, JSON: classes, input_shape, mean, std.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class names in the order of the logits, comma-separated.", show_default=False),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="channels,height,width.", show_default=False)
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean per channel of pixels in [0, 1].", show_default=False)
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Standard deviation per channel.", show_default=False)
    ] = None,
    fit: Annotated[
        str,
        typer.Option(help="How devices bring pictures to the model's size: stretch or center-crop."),
    ] = "stretch",
    least_images: Annotated[
        int | None,
        typer.Option(
            help="Devices warn when fewer images of a class are stored; 0: never. [default: what was "
            "measured for the method, see benchmarks/methods]",
            show_default=False,
        ),
    ] = None,
    kernel_costs: Annotated[
        Path | None,
        typer.Option(
            help="A cost table of `tune-kernels`: each convolution takes the form that was fastest. "
            "[default: the costs that come with the toolkit for the target's processor]",
            show_default=False,
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="Sign the bundle with this private key (clue-mobile keygen), for devices that take no "
            "other.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The bundle's name. [default: from --out]", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export

    chosen = presets.get(preset) if preset is not None else None
    if chosen and method not in (None, chosen.method):
        raise ClueError(f"--preset {preset} is of the method {chosen.method}: leave --method {method} out")
    spec = models.resolve_spec(
        model, weights=weights, card=card, classes=classes, input_shape=input_shape, mean=mean, std=std
    )
    module = models.load(spec, weights)
    if train_only:
        models.train_only(module, train_only)
    recipe = ExportRecipe(
        target=target,
        method=method or (chosen.method if chosen else "clue"),
        hyperparameters={
            **(chosen.hyperparameters if chosen else {}),
            **_file(hyperparameters),
            **settings(set_ or []),
        },
        batch=batch,
        tuned_batch=chosen.batch if chosen and tuned_batch is None else tuned_batch,
        runtimes=tuple(runtime) if runtime else None,
        float16_predict=float16_predict,
        cut_points=cut_points,
        float16=tuple(float16 or ()),
        guard_per_class=guard_per_class,
        guard_drop=guard_drop,
        kept_at_least=kept_at_least,
        name=name,
        fit=fit,
        least_images=least_images,
        memory_budget=None if memory_budget is None else parse_bytes(memory_budget, "--memory-budget"),
        micro_batch=micro_batch,
        kernel_costs=kernel_costs,
    )
    signed = signer(sign) if sign is not None else None
    train = _training_images(data, spec, validation, as_json) if data is not None else None
    guard = _guard_images(guard_data, spec, as_json) if guard_data is not None else None
    path = out or Path(f"{model.rpartition(':')[2]}.clue")
    with bar("export", as_json) as tell:
        export(
            module,
            spec,
            path,
            recipe,
            replace=force,
            train=train,
            guard=guard,
            sign=signed,
            progress=lambda stage, done, total: tell(done, total, stage),
        )
    if chosen and chosen.model != spec.model:
        note(f"--preset {preset} was found on {chosen.model}: for {spec.model} it is only a start", as_json)
    if weights is None:
        note("no --weights: the weights are drawn at random, good for a trial of the export only", as_json)
    manifest = json.loads((path / "manifest.json").read_bytes())
    wrong = _check(path, as_json)
    if as_json:
        print_json({"bundle": str(path), "differs": wrong, "manifest": manifest})
    else:
        _summary(path, manifest)
    if wrong:
        raise typer.Exit(1)


def _training_images(data: str, spec: Any, validation: int | None, quiet: bool) -> Samples:
    found = load_data(data, spec, validation, quiet).require("train")
    return Samples(found.images, found.labels)


def _guard_images(data: str, spec: Any, quiet: bool) -> Samples:
    """The test split; of data without one, everything."""
    import numpy as np

    found = load_data(data, spec, None, quiet)
    if len(found.test):
        return Samples(found.test.images, found.test.labels)
    parts = (found.train, found.validation)
    images, labels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels")
    )
    return Samples(images, labels)


def _check(path: Path, quiet: bool) -> list[str]:
    """Outputs that differ from eager PyTorch's, as RUNTIME PROGRAM.OUTPUT, on the engines at hand."""
    from clue_mobile.engines.check import check
    from pi_runtime.bundle import Bundle

    wrong = []
    for each in check(Bundle.open(path)):
        if each.not_run is not None:
            note(f"{each.runtime}: not checked. {each.not_run}", quiet)
            continue
        differs = [f"{each.runtime} {r.program}.{r.output}" for r in each.results if not r.ok]
        if not differs:
            note(f"{each.runtime}: all {len(each.results)} outputs agree with eager PyTorch", quiet)
        wrong += differs
    if wrong:
        note(f"DIFFERS from eager PyTorch: {', '.join(wrong)}; see clue-mobile check {path}", quiet)
    return wrong


def _summary(path: Path, manifest: dict[str, Any]) -> None:
    from rich.table import Table

    from clue_mobile.cli.common import console

    table = Table(
        title=f"{path}: {manifest['model']['name']}, {manifest['method']['name']}, batch "
        f"{manifest['method']['batch']}"
    )
    for heading in ("Program", "MFLOP", "Planned peak (MiB)", "Own files (KiB)"):
        table.add_column(heading, justify="left" if heading == "Program" else "right")
    programs = manifest["programs"]
    uses = Counter(file["file"] for entry in programs.values() for file in entry["files"].values())
    for name, entry in programs.items():
        own = sum(file["bytes"] for file in entry["files"].values() if uses[file["file"]] == 1)
        table.add_row(
            name, f"{entry['flops'] / 1e6:,.1f}", f"{entry['peak_bytes'] / 2**20:,.1f}", f"{own / 1024:,.0f}"
        )
    shown = console()
    shown.print(table)
    total = sum(file["bytes"] for file in manifest["files"])
    shown.print(f"{len(manifest['files'])} files, {total / 2**20:.1f} MiB. Next: clue-mobile check {path}")
    for line in delegated(manifest):
        shown.print(line)
    for notice in manifest["notices"]:
        shown.print(f"Note: {notice}")


def delegated(manifest: Mapping[str, Any]) -> list[str]:
    """For each program of a runtime with a delegate: the share of FLOPs that it takes, and the operators
    left."""
    lines = []
    for name, entry in manifest["programs"].items():
        for runtime, report in entry.get("reports", {}).items():
            if "delegated_flops" in report:
                left = ", ".join(f"{op} x {count}" for op, count in report["portable"].items()) or "none"
                share = f"{report['delegated_flops']:.1%} of the FLOPs delegated"
                lines.append(f"{runtime} {name}: {share}, operators left on portable kernels: {left}")
    return lines


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise ClueError(f'{path} must hold an object such as {{"lr": 0.0003}}')
    return found
