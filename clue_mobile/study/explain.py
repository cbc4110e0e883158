"""Where a model looked before and after forgetting, on images of the forgotten class and of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clue_mobile.data import Dataset, Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.metrics import check_classes, softmax
from clue_mobile.report.maps import Look, Shown, maps_picture
from clue_mobile.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from clue_mobile.evaluate.maps import Maps


def drawn(split: Split, classes: int, forget_class: int, forget: int, retain: int, seed: int) -> Split:
    """`forget` images of the class, then `retain` of the others, of as many classes as possible.

    Drawn with `seed`; fewer where there are not as many.
    """
    random = np.random.RandomState(seed)
    places = [random.permutation(np.flatnonzero(split.labels == label)) for label in range(classes)]
    others = [label for label in random.permutation(classes) if label != forget_class]
    longest = max((len(found) for found in places), default=0)
    rest = [places[label][turn] for turn in range(longest) for label in others if turn < len(places[label])]
    return split.select(np.array([*places[forget_class][:forget], *rest[:retain]], dtype=np.intp))


def explain_forgetting(
    out: Path,
    before: nn.Module,
    after: nn.Module,
    spec: ModelSpec,
    dataset: Dataset,
    forget_class: int,
    *,
    split: str = "test",
    forget: int = 3,
    retain: int = 3,
    layer: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw the maps of both models into the PNG `out`; return what is in it, as JSON-able values.

    split: train, validation or test. Raises ClueError for a split without images, a class that does not
    exist, a model with nothing to draw, and where `clue_mobile.report.maps.maps_picture` does.
    """
    from clue_mobile.evaluate.maps import explain

    check_classes(dataset, forget_class)
    images = drawn(dataset.require(split), len(dataset.classes), forget_class, forget, retain, seed)
    if not len(images):
        raise ClueError("there is no image to explain: ask for one of the forgotten class or of the others")
    maps = [explain(module, spec, images, layer) for module in (before, after)]
    first, second = (_looks(found, images, spec.classes) for found in maps)
    rows = [
        Shown(images.images[at], spec.classes[label], bool(label == forget_class), first[at], second[at])
        for at, label in enumerate(images.labels)
    ]
    kind, name = maps[0].kind, maps[0].layer
    note = f"{kind} at layer {name}, for the true class" if name else f"{kind}, whatever the class"
    title = f"Before and after forgetting the class “{spec.classes[forget_class]}”"
    picture = maps_picture(out, rows, title=title, kind=kind, note=f"{note}; {split} images, seed {seed}")
    return {
        "picture": str(picture),
        "kind": kind,
        "layer": name or None,
        "images": [
            {
                "class": row.name,
                "forgotten": row.forgotten,
                **{
                    moment: {"answer": look.answer, "probability": look.sure, "true_class": look.true}
                    for moment, look in (("before", row.before), ("after", row.after))
                },
            }
            for row in rows
        ],
    }


def _looks(found: Maps, images: Split, classes: tuple[str, ...]) -> list[Look]:
    shares = softmax(found.logits)
    names = [*classes, *(f"output {at}" for at in range(len(classes), shares.shape[1]))]
    return [
        Look(heat, names[int(row.argmax())], float(row.max()), float(row[label]))
        for heat, row, label in zip(found.heat, shares, images.labels, strict=True)
    ]
