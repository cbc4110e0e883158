"""SISA's cell: its own original, what it is after forgetting, and its own retrained reference, in one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clue_mobile import models
from clue_mobile.errors import ClueError
from clue_mobile.study.tasks import Task
from pi_runtime.device import PeakMemory

if TYPE_CHECKING:
    from torch import nn

    from clue_mobile.data import Dataset
    from clue_mobile.spec import ModelSpec


def measured(task: Task, spec: ModelSpec, dataset: Dataset) -> dict[str, Any]:
    """The row of the ensemble after forgetting; under "others" the scores of its original and its reference.

    No linear probe and no relearning: an ensemble has no penultimate features, and its votes no gradient.
    Raises ClueError for a tuning task: there is nothing to tune.
    """
    from clue_mobile import methods
    from clue_mobile.evaluate import score
    from clue_mobile.evaluate.eager import predictor
    from clue_mobile.methods import sisa

    if task.kind != "compare":
        raise ClueError("SISA is exact: there is nothing to tune")
    cell, memory = task.cell, PeakMemory()
    config = methods.configure("sisa", cell.config)
    images, labels = dataset.train.images, dataset.train.labels
    forgotten = labels == cell.forget_class

    def evaluated(module: nn.Module) -> dict[str, Any]:
        found = score(predictor(module, spec), cell.measured_on(dataset), cell.forget_class, seed=cell.seed)
        return {"scores": found.to_json(), "deep": None}

    new = models.load(spec, None, seed=cell.seed)
    original, trained = sisa.train(new, spec, images, labels, config, seed=cell.seed)
    before = {**evaluated(original), "wall_s": trained.seconds, "peak_mib": memory.read() / 2**20}
    memory.reset()
    start = memory.read()
    after, cost = sisa.forget(original, spec, images, labels, forgotten, seed=cell.seed)
    peak = memory.read()
    memory.reset()
    reference, again = sisa.train(
        new, spec, images, labels, config, seed=cell.seed + 1, without=np.asarray(forgotten)
    )
    return {
        **evaluated(after),
        "block": "SISA",
        "wall_s": cost.seconds,
        "peak_mib": peak / 2**20,
        "start_mib": start / 2**20,
        "steps": cost.slices,
        "density": None,
        "others": {
            "original": before,
            "retrain": {
                **evaluated(reference),
                "wall_s": again.seconds,
                "peak_mib": memory.read() / 2**20,
            },
        },
    }
