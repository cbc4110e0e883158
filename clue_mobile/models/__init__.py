"""Classifiers by name: the list of them, what is known about one, the module itself.

Importing this package imports no torch. A model is added by one entry in BUILTIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clue_mobile.errors import ClueError, unknown
from clue_mobile.models.card import EXAMPLES, parse_field, read_card
from clue_mobile.models.freeze import train_only
from clue_mobile.models.weights import read_metadata
from clue_mobile.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BUILTIN", "BuiltIn", "ModelRow", "available", "load", "resolve_spec", "train_only"]


class BuiltIn(NamedTuple):
    """A model that this package brings: where its factory is, what it costs, what it was made for."""

    factory: str  # package.module:function
    parameters: int  # with the classes and input of `spec`
    description: str
    spec: ModelSpec


class ModelRow(NamedTuple):
    """One line of `clue-mobile models`; None where it depends on what the name stands for."""

    name: str
    parameters: int | None
    input: str | None  # channels x height x width
    description: str


_CIFAR10 = ModelSpec(
    model="resnet20",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    input_shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)

BUILTIN: dict[str, BuiltIn] = {
    "resnet20": BuiltIn(
        factory="clue_mobile.models.resnet20:resnet20",
        parameters=269_722,
        description="CIFAR ResNet-20, option A shortcuts (He et al. 2016)",
        spec=_CIFAR10,
    ),
    "digits_cnn": BuiltIn(
        factory="clue_mobile.models.digits_cnn:digits_cnn",
        parameters=24_058,
        description="three convolutions with batch normalisation, for 8x8 digits",
        spec=ModelSpec("digits_cnn", tuple("0123456789"), (1, 8, 8), mean=(0.3053,), std=(0.3760,)),
    ),
    "vit_small_patch4": BuiltIn(
        factory="clue_mobile.models.vit_small:vit_small_patch4",
        parameters=2_693_578,
        description="vision transformer, patch 4, width 192, depth 6, 3 heads (Dosovitskiy et al. 2021)",
        spec=replace(_CIFAR10, model="vit_small_patch4"),
    ),
}

EXTERNAL = {
    "torchvision:NAME": "a classifier of torchvision.models",
    "timm:NAME": "a model of timm (pip install 'clue-mobile[timm]')",
    "package.module:factory": "your function that returns a torch.nn.Module, in an installed package",
    "path/file.py:factory": "your function that returns a torch.nn.Module, in a file",
}


def resolve_spec(
    model: str,
    *,
    weights: Path | None = None,
    card: Path | None = None,
    classes: Sequence[str] | str | None = None,
    input_shape: Sequence[int] | str | None = None,
    mean: Sequence[float] | str | None = None,
    std: Sequence[float] | str | None = None,
) -> ModelSpec:
    """Collect what is known about `model`.

    Each field comes from the first of: the arguments, the model card (a JSON file), the metadata of a
    .safetensors file, the defaults of a built-in model. A field may be a string, JSON or comma-separated.
    Raises ClueError for an unknown model, a field that none of them gives, and fields that contradict each
    other.
    """
    _check_reference(model)
    options = {"classes": classes, "input_shape": input_shape, "mean": mean, "std": std}
    sources: list[tuple[str, dict[str, Any]]] = [("the options", options)]
    if card is not None:
        fields = read_card(card)
        if fields.get("model", model) != model:
            raise ClueError(f"the model card {card} is for {fields['model']!r}, not {model!r}")
        sources.append((str(card), fields))
    if weights is not None:
        sources.append((f"the metadata of {weights}", dict(read_metadata(weights))))
    if model in BUILTIN:
        sources.append(("the built-in model", vars(BUILTIN[model].spec)))

    found: dict[str, tuple[Any, ...]] = {}
    for name in EXAMPLES:
        for source, fields in sources:
            if fields.get(name) is not None:
                found[name] = parse_field(name, fields[name], source)
                break
    missing = [name for name in EXAMPLES if name not in found]
    if missing:
        examples = " ".join(f"--{name.replace('_', '-')} {EXAMPLES[name]}" for name in missing)
        raise ClueError(
            f"{model} needs {', '.join(missing)}: give them as options (for example {examples}), "
            "in a model card (a JSON file with these keys) or in the metadata of a .safetensors file"
        )
    return ModelSpec(model, **found)


def load(spec: ModelSpec, weights: Path | None, seed: int = 0) -> nn.Module:
    """Return the module of `spec` in eval mode and float32, with the weights of a file or drawn from `seed`.

    Raises ClueError where `build.build` and `weights.load_weights` do.
    """
    from clue_mobile.models.build import build
    from clue_mobile.models.weights import load_weights

    _check_reference(spec.model)
    reference = BUILTIN[spec.model].factory if spec.model in BUILTIN else spec.model
    module = build(reference, spec, seed)
    if weights is not None:
        load_weights(module, weights)
    return module


def available() -> list[ModelRow]:
    """Return the models that `--model` takes: the built-in ones, then the forms of the others."""
    rows = [
        ModelRow(name, entry.parameters, "x".join(map(str, entry.spec.input_shape)), entry.description)
        for name, entry in BUILTIN.items()
    ]
    return rows + [ModelRow(name, None, None, description) for name, description in EXTERNAL.items()]


def _check_reference(model: str) -> None:
    source, _, name = model.rpartition(":")
    if model not in BUILTIN and not (source and name):
        raise unknown("model", model, [*BUILTIN, *EXTERNAL])
