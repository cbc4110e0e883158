"""One cell of a comparison: one method on one class and seed, measured in the process that asks for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clue_mobile import methods, models
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.spec import ModelSpec
from clue_mobile.study import block
from clue_mobile.study.original import train_once
from clue_mobile.study.tasks import ORIGINAL, RETRAIN, Task
from pi_runtime.device import PeakMemory

if TYPE_CHECKING:
    from torch import nn

Array = np.ndarray[Any, Any]


def run(task: Task, spec: ModelSpec, dataset: Dataset) -> dict[str, Any]:
    """Do the task and return its row. Raises ClueError for what a method or the evaluation refuses."""
    import torch

    torch.set_num_threads(task.threads)
    if task.kind == "train":
        return train_once(spec, dataset, task.cell.config, Path(task.save))
    began = time.perf_counter()
    if task.cell.method in methods.BLOCKS:
        row = block.measured(task, spec, dataset)
    else:
        module, row = forgotten(task, spec, dataset)
        module.eval()
        if task.kind == "tune":
            row["validation"] = validation_accuracies(module, spec, dataset, task.cell.forget_class)
        else:
            row |= evaluated(module, spec, dataset, task)
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    return {**row, "threads": task.threads, "versions": versions, "total_s": time.perf_counter() - began}


def forgotten(task: Task, spec: ModelSpec, dataset: Dataset) -> tuple[nn.Module, dict[str, Any]]:
    """The module after the cell's method, and what that took: wall_s, peak_mib, start_mib, steps, density.

    peak_mib is the largest resident memory of the process during the method, start_mib what PyTorch, the
    images and the model held before.
    """
    cell, memory = task.cell, PeakMemory()
    known: dict[str, Any] = {"steps": 0, "density": None, "wall_s": None, "peak_mib": None, "start_mib": None}
    if cell.method == ORIGINAL:
        return models.load(spec, Path(task.weights)), known
    if cell.method == RETRAIN:
        if task.retrained:
            return models.load(spec, Path(task.retrained)), known
        training = {**cell.config, "seed": cell.seed + 1, "exclude_class": cell.forget_class}
        cost = train_once(spec, dataset, training, Path(task.save))
        return models.load(spec, Path(task.save)), {**known, **cost}
    method = methods.get(cell.method)
    config = methods.configure(cell.method, cell.config)
    module = models.load(spec, Path(task.weights))
    forget = cell.forget_set(dataset)
    retain = dataset.train.without_class(cell.forget_class)
    memory.reset()
    start, began = memory.read(), time.perf_counter()
    log = method.unlearn(
        module,
        spec,
        forget.images,
        forget.labels,
        config,
        seed=cell.seed,
        batch=cell.batch,
        retain=methods.Samples(retain.images, retain.labels),
    )
    known |= {"wall_s": time.perf_counter() - began, "peak_mib": memory.read() / 2**20}
    densities = [float(row["density"]) for row in log if "density" in row]
    known |= {"start_mib": start / 2**20, "steps": len(log)}
    return module, {**known, "density": float(np.mean(densities)) if densities else None}


def evaluated(module: nn.Module, spec: ModelSpec, dataset: Dataset, task: Task) -> dict[str, Any]:
    """The scores of a module on training and test images, what tells forgetting from hiding ("deep"), and its
    accuracies over all classes."""
    from clue_mobile.evaluate import score
    from clue_mobile.evaluate.deep import extended
    from clue_mobile.evaluate.eager import final_linear, predictor

    label, seed, every = task.cell.forget_class, task.cell.seed, dataset.train.labels
    dataset = task.cell.measured_on(dataset)
    deep: dict[str, Any] | None
    try:
        final_linear(module, spec)
    except ClueError:  # no last linear layer, so no features to probe
        scores, deep = score(predictor(module, spec), dataset, label, seed=seed), None
    else:
        scores, deep = extended(
            module, spec, dataset, label, seed=seed, original_accuracy=task.original_accuracy
        )
    return {
        "scores": scores.to_json(),
        "deep": deep,
        "train_accuracy": _over_all(every, label, scores.ua, scores.ra),
        "test_accuracy": _over_all(dataset.test.labels, label, scores.forget_test, scores.ta),
    }


def validation_accuracies(
    module: nn.Module, spec: ModelSpec, dataset: Dataset, label: int
) -> dict[str, float]:
    """Accuracy in percent on the validation images of the forgotten class ("forget") and of the others
    ("retain"). The test images are not touched."""
    from clue_mobile.evaluate import accuracy, predict_all
    from clue_mobile.evaluate.eager import predictor

    images = dataset.require("validation")
    logits = predict_all(predictor(module, spec), images.images, spec.num_classes)
    forgotten = images.labels == label
    return {
        "forget": accuracy(logits[forgotten], images.labels[forgotten]),
        "retain": accuracy(logits[~forgotten], images.labels[~forgotten]),
    }


def _over_all(labels: Array, label: int, forget: float, retain: float) -> float:
    share = float(np.mean(labels == label))
    return share * forget + (1 - share) * retain
