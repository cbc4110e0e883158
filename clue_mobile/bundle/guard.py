"""Guard images: a few of every class in the bundle, by which a device sees what the others lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clue_mobile.bundle.manifest import Guarded
from clue_mobile.bundle.writer import BundleWriter
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel

Array = np.ndarray[Any, Any]

_BATCH = 256
FILE = "guard/guard.safetensors"


def choose(labels: Array, classes: int, per_class: int) -> Array:
    """The first `per_class` positions of each class, in the order of the data; all of a class that has fewer.

    Raises ClueError when there is none at all, or `per_class` is not from 1 to 1,000.
    """
    if not 1 <= per_class <= 1000:
        raise ClueError(f"--guard-per-class must be from 1 to 1000, not {per_class}")
    found = np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in range(classes)])
    if not len(found):
        raise ClueError("--guard-data has no images")
    return np.sort(found)


def add(
    writer: BundleWriter, model: FlatModel, images: Array, labels: Array, per_class: int, drop: float
) -> Guarded:
    """Write the guard file; returns what the manifest says of it.

    images: uint8 [N, H, W, C] that the model never saw, labels: class indices [N]. Raises ClueError as
    `choose` does, and for a `drop` that is no number of points.
    """
    from safetensors.numpy import save

    if not 0 <= drop <= 100:
        raise ClueError(f"--guard-drop must be from 0 to 100 points, not {drop}")
    chosen = choose(labels, model.spec.num_classes, per_class)
    pixels, classes = images[chosen].astype(np.uint8), labels[chosen].astype(np.int64)
    row = writer.add(FILE, save({"images": pixels, "labels": classes}))
    return Guarded(row, len(chosen), round(_accuracy(model, images, labels), 2), float(drop))


def _accuracy(model: FlatModel, images: Array, labels: Array) -> float:
    """Percent of the images that the model gives their label."""
    state, right = model.pack(), 0
    for start in range(0, len(images), _BATCH):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
        with torch.no_grad():
            logits = model.predict(state, part.permute(0, 3, 1, 2).float() / 255)
        right += int(np.count_nonzero(logits.argmax(1).numpy() == labels[start : start + _BATCH]))
    return 100.0 * right / len(images)
