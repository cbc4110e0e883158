"""`clue-mobile explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clue_mobile.cli.common import (
    DataOption,
    ForgetOption,
    JsonOption,
    ValidationOption,
    class_label,
    console,
    load_data,
    print_json,
)
from clue_mobile.errors import ClueError, unknown

HELP = (
    "Draw where the model looks before and after forgetting: attention rollout for vision transformers, "
    "Grad-CAM for convolutional networks.\n\n"
    "Example: clue-mobile explain cifar.clue --store cifar.store --data cifar10_images.zip --forget airplane "
    "--out maps.png\n\n"
    "Without a bundle: clue-mobile explain --model resnet20 --before original.safetensors --after "
    "unlearned.safetensors --data cifar10_images.zip --forget airplane --out maps.png"
)
SPLITS = ("train", "validation", "test")


def command(
    data: DataOption,
    forget: ForgetOption,
    out: Annotated[Path, typer.Option(help="The picture, a PNG.", show_default=False)],
    bundle: Annotated[
        Path | None, typer.Argument(help="The bundle folder, NAME.clue.", show_default=False)
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="The store whose served weights are those after.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="In place of a bundle: a model, see `clue-mobile models`.", show_default=False),
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="With --model: weights before.", show_default=False)
    ] = None,
    after: Annotated[
        Path | None, typer.Option(help="With --model: weights after.", show_default=False)
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="With --model: a model card (JSON).", show_default=False)
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Images of the forgotten class.")] = 3,
    retain: Annotated[int, typer.Option(min=0, help="Images of other classes.")] = 3,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    layer: Annotated[
        str | None,
        typer.Option(help="Grad-CAM at this layer. [default: the last feature map]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the images drawn.", min=0, max=2**32 - 1)] = 0,
    validation: ValidationOption = None,
    as_json: JsonOption = False,
) -> None:
    """See HELP."""
    from clue_mobile.study.explain import explain_forgetting

    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if out.suffix.lower() != ".png":
        raise ClueError(f"--out must end in .png, not {out.name!r}")
    first, second, spec = _models(bundle, store, model, before, after, card)
    label = class_label(forget, spec.classes)
    dataset = load_data(data, spec, validation, as_json)
    told = explain_forgetting(
        out,
        first,
        second,
        spec,
        dataset,
        label,
        split=split,
        forget=images,
        retain=retain,
        layer=layer,
        seed=seed,
    )
    if as_json:
        print_json(told)
    else:
        where = f" at layer {told['layer']}" if told["layer"] else ""
        console().print(f"{out}: {told['kind']}{where}, {len(told['images'])} images")


def _models(
    bundle: Path | None,
    store: Path | None,
    model: str | None,
    before: Path | None,
    after: Path | None,
    card: Path | None,
) -> tuple[Any, Any, Any]:
    """The module before, the one after, and their spec."""
    if (bundle is None) == (model is None):
        raise ClueError(
            "give either a bundle with --store, or --model with --before and --after"
            + ("" if bundle is None else ", not both")
        )
    if bundle is not None:
        if store is None or before or after or card:
            raise ClueError(
                "with a bundle the weights after are those of --store, the folder that `clue-mobile forget` "
                "wrote; --before, --after and --card belong to --model"
            )
        from clue_mobile.study.rebuild import rebuild
        from clue_mobile.study.served import served, shipped
        from pi_runtime.bundle import Bundle

        opened = Bundle.open(bundle)
        second, spec = rebuild(opened, served(opened, store).state)
        return rebuild(opened, shipped(opened))[0], second, spec
    if before is None or after is None or store is not None:
        raise ClueError(
            "--model needs --before and --after, two files of weights; --store belongs to a bundle"
        )
    from clue_mobile import models

    assert model is not None
    spec = models.resolve_spec(model, weights=before, card=card)
    return models.load(spec, before), models.load(spec, after), spec
