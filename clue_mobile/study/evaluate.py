"""Original, served and retrained weights of one bundle, measured by its exported programs."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clue_mobile.bundle.reader import Predictor, pack
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.metrics import (
    Predict,
    Scores,
    check_classes,
    energy,
    outputs,
    predict_all,
    scores_of,
)
from clue_mobile.report import (
    Picture,
    Report,
    Row,
    Snapshot,
    Table,
    class_table,
    confusion_tables,
    deep_table,
    forgetting_picture,
    to_json,
    to_table,
    write_report,
)
from clue_mobile.study.rebuild import rebuild
from clue_mobile.study.served import served, shipped
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Array
from pi_runtime.onnx_engine import OnnxEngine

if TYPE_CHECKING:
    from clue_mobile.data import Dataset

Told = Callable[[str, int, int], None]
_ENERGY_IMAGES = 2000  # of each set: enough for a histogram of 60 bins


@dataclass(frozen=True)
class Evaluation:
    """Rows in the order Original, Retrain (if given), the method (if a store is given); snapshots by row
    name, for the picture; `deep` by row name, what `clue_mobile.evaluate.deep` tells, if asked for."""

    rows: list[Row]
    snapshots: Mapping[str, Snapshot]
    classes: tuple[str, ...]
    label: int
    method: str
    deep: Mapping[str, Mapping[str, Any]]

    def draw(self, path: Path) -> Path:
        """The picture of before and after. Raises ClueError where no store, and so no after, was given."""
        if self.method not in self.snapshots:
            raise ClueError(
                "a picture of before and after needs --store, the folder that `clue-mobile forget` wrote"
            )
        retrain = self.snapshots.get("Retrain")
        return forgetting_picture(
            path,
            self.snapshots["Original"],
            self.snapshots[self.method],
            classes=self.classes,
            forget_class=self.label,
            retrain_per_class=retrain.per_class if retrain else None,
        )

    def deep_tables(self, widest: int | None = None) -> list[Table]:
        """What `deep` tells, as tables; none where it was not asked for. Of more than `widest` classes there
        is no confusion matrix."""
        if not self.deep:
            return []
        shown = widest is None or len(self.classes) <= widest
        matrices = confusion_tables(self.deep, self.classes) if shown else []
        return [deep_table(self.deep), class_table(self.deep, self.classes, self.label), *matrices]

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {**to_json(self.rows), **({"deep": self.deep} if self.deep else {})}

    def write_report(self, path: Path, name: str, introduction: Sequence[str] = ()) -> Path:
        """The tables, the picture where there is one, and the results as one HTML file."""
        forgotten = self.classes[self.label]
        with tempfile.TemporaryDirectory() as folder:
            pictures = []
            if self.method in self.snapshots:
                drawn = self.draw(Path(folder) / "forgetting.png")
                caption = f"Energies and accuracies before and after forgetting {forgotten}"
                pictures = [Picture(drawn, caption, f"{caption}; the table above has the numbers.")]
            tables = [to_table(self.rows, caption=f"Forgetting {forgotten}"), *self.deep_tables()]
            report = Report(f"{name}: forgetting {forgotten}", introduction, tables, pictures, self.to_json())
            return write_report(path, report)


def evaluate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    label: int,
    *,
    store: Path | None = None,
    retrained: Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    energies: bool = False,
    program: str = "predict",
    deep: bool = False,
    progress: Told = lambda name, done, total: None,
) -> Evaluation:
    """Score each set of weights on `dataset` for the forgotten class `label`.

    store: a device runtime's folder, whose served weights give the method's row, time and peak memory.
    retrained: a state dict trained without the class. energies: also keep what the picture needs. program:
    which one predicts. deep: also attack, probe and relearn, with the module built again from the bundle's
    model name. Raises ClueError for weights of another model, missing test images or program, and, if deep,
    a model that cannot be built again.
    """
    dataset.require("test")
    check_classes(dataset, label)
    engine = OnnxEngine(threads)
    todo: list[tuple[str, dict[str, Array], float | None, float | None]] = [
        ("Original", shipped(bundle), None, None)
    ]
    if retrained is not None:
        from clue_mobile.models.weights import read_state_dict

        # float: numpy has no bfloat16; "module." is what DataParallel puts before every name
        tensors = {
            name.removeprefix("module."): tensor.float().numpy()
            for name, tensor in read_state_dict(retrained).items()
        }
        todo.append(("Retrain", pack(bundle, tensors), None, None))
    method = bundle.method.upper()
    if store is not None:
        todo.append((method, *served(bundle, store)))
    if deep:
        rebuild(bundle, todo[0][1])  # fail before minutes of predictions, not after
    rows: list[Row] = []
    snapshots, deepened = {}, {}
    for name, state, wall, peak in todo:
        predict = Predictor(bundle, engine, state, program)
        found = outputs(predict, dataset, functools.partial(progress, name))
        scores = scores_of(found, dataset, label, seed)
        rows.append(Row(name, scores, wall, peak))
        if deep:
            from clue_mobile.evaluate.deep import deepen

            deepened[name] = deepen(
                *rebuild(bundle, state),
                dataset,
                label,
                found,
                scores,
                seed=seed,
                original_accuracy=rows[0].scores.forget_test,
                progress=functools.partial(_within, progress, name),
            )
        if energies:
            snapshots[name] = _snapshot(predict, dataset, label, scores)
    return Evaluation(rows, snapshots, bundle.classes, label, method, deepened)


def _within(progress: Told, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def _snapshot(predict: Predict, dataset: Dataset, label: int, scores: Scores) -> Snapshot:
    def energies(split: Any) -> Any:
        picked = split.select(np.linspace(0, len(split) - 1, min(_ENERGY_IMAGES, len(split))).astype(np.intp))
        return energy(predict_all(predict, picked.images, len(dataset.classes)))

    train = dataset.train
    return Snapshot(energies(train.of_class(label)), energies(train.without_class(label)), scores.per_class)
