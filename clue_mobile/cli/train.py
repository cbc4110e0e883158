"""`clue-mobile train`."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from clue_mobile.cli.common import (
    DataOption,
    JsonOption,
    ValidationOption,
    bar,
    class_label,
    note,
    print_json,
)
from clue_mobile.errors import ClueError, unknown

HELP = (
    "Train a built-in model: one-cycle SGD or AdamW, resumable after each epoch.\n\n"
    "--exclude trains the reference of unlearning, the model that never saw the class. --weights goes on "
    "from trained weights, with a schedule of its own.\n\n"
    "Example: clue-mobile train --model digits_cnn --data digits --epochs 30 --augment none --out "
    "digits.safetensors"
)


def command(
    model: Annotated[str, typer.Option(help="A name from `clue-mobile models`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Where the weights go, .safetensors.", show_default=False)],
    epochs: Annotated[int, typer.Option(min=1)] = 36,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.1,
    batch: Annotated[int, typer.Option(min=2)] = 128,
    weight_decay: Annotated[float, typer.Option()] = 5e-4,
    augment: Annotated[str, typer.Option(help="crop_flip or none.")] = "crop_flip",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    optimizer: Annotated[
        str, typer.Option(help="sgd, or adamw (for a transformer: --lr 0.001 --weight-decay 0.05).")
    ] = "sgd",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from these weights, .safetensors or .pt/.pth. [default: random]", show_default=False
        ),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Leave this class out of training.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    validation: ValidationOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See HELP. The checkpoint OUT.checkpoint is continued where it fits and removed at the end."""
    from clue_mobile import data as data_sets
    from clue_mobile import models, training
    from clue_mobile.models.weights import save_weights

    if model not in models.BUILTIN:
        raise unknown("built-in model", model, models.BUILTIN)
    if out.suffix != ".safetensors":
        raise ClueError(f"--out must end in .safetensors, not {out.name!r}")
    if out.exists() and not force:
        raise ClueError(f"{out} exists already: choose another --out, or give --force to replace it")
    if not out.parent.is_dir():
        raise ClueError(f"the folder {out.parent} does not exist: make it first")
    spec = models.resolve_spec(model)
    left_out = None if exclude is None else class_label(exclude, spec.classes)
    config = training.TrainConfig(
        epochs=epochs,
        lr=lr,
        batch=batch,
        weight_decay=weight_decay,
        augment=cast(training.Augment, augment),
        precision=cast(training.Precision, precision),
        optimizer=cast(training.Optimizer, optimizer),
        seed=seed,
        exclude_class=left_out,
    )
    with bar("images", as_json) as tell:
        images = data_sets.load(
            data,
            input_shape=spec.input_shape,
            classes=spec.classes,
            validation_per_class=validation,
            progress=lambda done, total: tell(done, total, ""),
        )
    module = models.load(spec, weights, seed=seed)
    checkpoint = out.with_name(out.name + ".checkpoint")
    began = time.monotonic()
    with bar("train", as_json) as tell:

        def progress(row: dict[str, Any]) -> None:
            shown = " ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float))
            tell(int(row["epoch"]), epochs, shown)
            note(f"epoch {row['epoch']}/{epochs} {shown}", as_json)

        history = training.train(
            module,
            spec,
            images.train.images,
            images.train.labels,
            config,
            checkpoint=checkpoint,
            progress=progress,
            validation=(images.validation.images, images.validation.labels)
            if len(images.validation)
            else None,
        )
    metadata = {
        "architecture": model,
        **{key: json.dumps(getattr(spec, key)) for key in ("classes", "input_shape", "mean", "std")},
        "training": json.dumps(dataclasses.asdict(config)),
    }
    save_weights(module, out, metadata)
    checkpoint.unlink(missing_ok=True)
    result = {"weights": str(out), "seconds": round(time.monotonic() - began, 1), "last": history[-1]}
    if as_json:
        print_json({**result, "history": history})
    else:
        print(
            f"{out}: {' '.join(f'{k} {v:.4g}' for k, v in history[-1].items() if isinstance(v, float))}, "
            f"{result['seconds']} s"
        )
