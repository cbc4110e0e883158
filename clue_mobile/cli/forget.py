"""`clue-mobile forget`: a thin driver over the device runtime; there is no second runner."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.cli.common import (
    BundleArgument,
    DataOption,
    ForgetOption,
    JsonOption,
    PresetOption,
    ThreadsOption,
    ValidationOption,
    bar,
    load_data,
    note,
    print_json,
    scalars,
)
from clue_mobile.study import presets

HELP = (
    "Forget a class: its training images go to the device runtime, which runs the bundle's programs on "
    "this computer.\n\n"
    "The bundle is only read; samples, new weights and the cost log go to --store.\n\n"
    "Example: clue-mobile forget cifar.clue --data cifar10_images.zip --forget airplane"
)


def command(
    bundle: BundleArgument,
    data: DataOption,
    forget: ForgetOption,
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of samples, weights and log. [default: NAME.store]", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Add at most this many images to the store.", min=1, show_default=False)
    ] = None,
    validation: ValidationOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of all random numbers. [default: drawn and recorded]", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A scalar of the method, NAME=VALUE (repeatable).", show_default=False),
    ] = None,
    preset: PresetOption = None,
    threads: ThreadsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and what it takes, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP. Exit code 1 where the request fails its checks; the old weights then still serve."""
    from pi_runtime.bundle import Bundle
    from pi_runtime.forget import check_seed
    from pi_runtime.runtime import Runtime

    opened = Bundle.open(bundle)
    label = opened.label(forget)
    from_preset = presets.scalars_for(presets.get(preset), bundle) if preset is not None else {}
    chosen, seed = {**from_preset, **scalars(set_ or [])}, check_seed(seed)
    opened.merged_scalars(chosen)
    samples = load_data(data, opened, validation, as_json).train.of_class(label)
    samples = samples if limit is None else samples.take(limit)
    if dry_run:  # in a store of its own: a dry run leaves nothing behind
        with (
            tempfile.TemporaryDirectory() as scratch,
            Runtime.for_bundle(opened, Path(scratch) / "store", threads=threads) as runtime,
        ):
            runtime.add(samples.images, label)
            _print_plan(runtime.dry_run(label, scalars=chosen), as_json)
        return
    folder = store or Path(f"{opened.name}.store")
    with Runtime.for_bundle(opened, folder, threads=threads) as runtime:
        added = runtime.add(samples.images, label)
        held = len(runtime.store.sample_ids(label))
        note(
            f"{len(samples)} images of {opened.classes[label]!r}, {len(added)} new in {folder}; the request "
            f"uses all {held} that it holds",
            as_json,
        )
        with bar("forget", as_json) as tell:

            def progress(p: Any) -> None:
                metrics = " ".join(f"{name} {value:.3g}" for name, value in p.metrics.items())
                tell(p.done, p.total, f"{p.phase} epoch {p.epoch + 1} {metrics}")

            result = runtime.forget(label, seed=seed, scalars=chosen, progress=progress)
    if as_json:
        print_json({**dataclasses.asdict(result), "store": str(folder)})
    else:
        _print_result(result, opened.classes[label], folder, bundle)
    if result.status != "done":
        raise typer.Exit(1)


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    runs = ", ".join(f"{name} {count}x" for name, count in plan["runs"].items())
    print(f"would run {plan['operations']} operations on {plan['samples']} samples: {runs}")
    print(
        f"{plan['flops'] / 1e9:,.1f} GFLOP, {plan['planned_peak_bytes'] / 2**20:,.1f} MiB at the peak, "
        f"{plan['storage_bytes'] / 2**20:,.1f} MiB of storage"
    )


def _print_result(result: Any, name: str, folder: Path, bundle: Path) -> None:
    evidence = result.evidence
    before, after = (
        f"{evidence[key]:.1f} %" if key in evidence else "not measured"
        for key in ("forget_accuracy_before", "forget_accuracy_after")
    )
    whole = next(r for r in result.records if r["phase"] == "request")
    print(
        f"request {result.id}: {result.status}{'; ' + result.reason if result.reason else ''} (seed "
        f"{result.seed})"
    )
    print(
        f"forget accuracy on {evidence['samples']} images of {name!r}: "
        f"{before} -> {after}, {evidence['steps']} program runs in {whole['wall_s']:.1f} s, "
        f"peak {whole['peak_mem_bytes'] / 2**20:.0f} MiB"
    )
    if result.status == "done":
        print(
            f"generation {result.generation} now serves from {folder}. Next: clue-mobile evaluate {bundle} "
            f"--store {folder} ..."
        )
