"""Weights that a comparison trains itself: the original, and the ones that never saw a class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clue_mobile import models
from clue_mobile.models.weights import read_metadata
from pi_runtime.device import PeakMemory

if TYPE_CHECKING:
    from clue_mobile.data import Dataset
    from clue_mobile.spec import ModelSpec


def train_once(
    spec: ModelSpec, dataset: Dataset, config: Mapping[str, Any], path: Path
) -> dict[str, float | None]:
    """Train to `path` unless it exists, and return what it took: wall_s, peak_mib, start_mib.

    Continued from path.checkpoint where a killed run left one; the seconds are then those of all parts, the
    memory that of the last. Raises ClueError as `clue_mobile.training.train` does.
    """
    from clue_mobile import training
    from clue_mobile.models.weights import save_weights

    if path.exists():
        found: dict[str, float | None] = json.loads(read_metadata(path)["cost"])
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = training.TrainConfig(**config)
    module = models.load(spec, None, seed=chosen.seed)
    memory = PeakMemory()
    start = memory.read()
    checkpoint = path.with_name(path.name + ".checkpoint")
    history = training.train(
        module, spec, dataset.train.images, dataset.train.labels, chosen, checkpoint=checkpoint
    )
    cost: dict[str, float | None] = {
        "wall_s": sum(float(row["seconds"]) for row in history),
        "peak_mib": memory.read() / 2**20,
        "start_mib": start / 2**20,
    }
    metadata = {**spec.to_metadata(), "architecture": spec.model, "cost": json.dumps(cost)}
    save_weights(module, path, {**metadata, "training": json.dumps(dataclasses.asdict(chosen))})
    checkpoint.unlink(missing_ok=True)
    return cost
