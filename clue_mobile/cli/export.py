"""`clue-mobile export`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.cli.common import JsonOption, bar, note, print_json, settings
from clue_mobile.errors import ClueError

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
    target: Annotated[str, typer.Option(help="The device: pi5 or host.")] = "pi5",
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Only this runtime (repeatable). [default: the target's]", show_default=False),
    ] = None,
    method: Annotated[str, typer.Option(help="The unlearning method.")] = "clue",
    hyperparameters: Annotated[
        Path | None, typer.Option(help="A JSON file of the method's hyperparameters.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One hyperparameter, NAME=VALUE (repeatable), such as lr=0.0003.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples in one step on the device.")] = 32,
    tuned_batch: Annotated[
        int | None,
        typer.Option(help="The batch that lr and tau were chosen at. [default: --batch]", show_default=False),
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
    name: Annotated[
        str | None, typer.Option(help="The bundle's name. [default: from --out]", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export

    spec = models.resolve_spec(
        model, weights=weights, card=card, classes=classes, input_shape=input_shape, mean=mean, std=std
    )
    module = models.load(spec, weights)
    recipe = ExportRecipe(
        target=target,
        method=method,
        hyperparameters={**_file(hyperparameters), **settings(set_ or [])},
        batch=batch,
        tuned_batch=tuned_batch,
        runtimes=tuple(runtime) if runtime else None,
        name=name,
    )
    path = out or Path(f"{model.rpartition(':')[2]}.clue")
    with bar("export", as_json) as tell:
        export(
            module,
            spec,
            path,
            recipe,
            replace=force,
            progress=lambda stage, done, total: tell(done, total, stage),
        )
    if weights is None:
        note("no --weights: the weights are drawn at random, good for a trial of the export only", as_json)
    manifest = json.loads((path / "manifest.json").read_bytes())
    wrong = _check(path, as_json)
    if as_json:
        print_json(
            {"bundle": str(path), "checked": wrong is not None, "differs": wrong, "manifest": manifest}
        )
    else:
        _summary(path, manifest)
    if wrong:
        raise typer.Exit(1)


def _check(path: Path, quiet: bool) -> list[str] | None:
    """Outputs that differ from eager PyTorch's, by the engine at hand; None where there is no engine."""
    from importlib.util import find_spec

    if find_spec("onnxruntime") is None:
        note("not checked: the engine is not installed, pip install 'clue-mobile[pi]'", quiet)
        return None
    from pi_runtime import golden
    from pi_runtime.bundle import Bundle
    from pi_runtime.onnx_engine import OnnxEngine

    results = golden.check(Bundle.open(path), OnnxEngine())
    wrong = [f"{r.program}.{r.output}" for r in results if not r.ok]
    if wrong:
        note(f"DIFFERS from eager PyTorch: {', '.join(wrong)}; see clue-mobile check {path}", quiet)
    else:
        note(f"checked: all {len(results)} outputs agree with eager PyTorch", quiet)
    return wrong


def _summary(path: Path, manifest: dict[str, Any]) -> None:
    from rich.table import Table

    from clue_mobile.cli.common import console

    table = Table(
        title=f"{path}: {manifest['model']['name']}, {manifest['method']['name']}, batch "
        f"{manifest['method']['batch']}"
    )
    for heading in ("Program", "MFLOP", "Planned peak (MiB)", "Files (KiB)"):
        table.add_column(heading, justify="left" if heading == "Program" else "right")
    for name, entry in manifest["programs"].items():
        size = sum(file["bytes"] for file in entry["files"].values())
        table.add_row(
            name, f"{entry['flops'] / 1e6:,.1f}", f"{entry['peak_bytes'] / 2**20:,.1f}", f"{size / 1024:,.0f}"
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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ClueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ClueError(f'{path} must hold an object such as {{"lr": 0.0003}}')
    return found
