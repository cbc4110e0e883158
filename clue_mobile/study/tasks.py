"""What a comparison is made of, in plain values: cells, the setting they share, and tasks for a process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clue_mobile import data
from clue_mobile.data import Dataset, Split, random_images, random_others
from clue_mobile.spec import ModelSpec

ORIGINAL, RETRAIN = "original", "retrain"
"""The two rows that are no unlearning: the model as it was, and the one that never saw the class."""


@dataclass(frozen=True)
class Cell:
    """What makes a run this run and no other: two cells that agree in all fields have one result.

    config: every hyperparameter (for `retrain`: the training's, or the sha256 of the file that was given).
    weights: sha256 of the original's file. data: see `data_identity`. code: sha256 of a method's own file.
    forget_from, forget_images: the forget set is so many images of the class, drawn with the seed from the
    training or the test images; None takes all. retain_images: so many training images of the other classes,
    the same in all cells, are what RA and the attacks are measured on; None takes all.
    """

    method: str
    variant: str
    config: Mapping[str, Any]
    model: str
    forget_class: int
    seed: int
    batch: int
    weights: str
    data: str
    code: str = ""
    forget_from: str = "train"
    forget_images: int | None = None
    retain_images: int | None = None

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the sha256 of all fields; of those that choose images only where they do
        not take all training images, so that results from before there was a choice keep their keys."""
        fields = dataclasses.asdict(self)
        for name, whole in (("forget_from", "train"), ("forget_images", None), ("retain_images", None)):
            if fields[name] == whole:
                del fields[name]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def forget_set(self, dataset: Dataset) -> Split:
        """The images that the method is told to forget. Raises ClueError where there are too few."""
        split = dataset.require(self.forget_from)
        if self.forget_images is None:
            return split.of_class(self.forget_class)
        return split.select(random_images(split, self.forget_class, self.forget_images, self.seed))

    def measured_on(self, dataset: Dataset) -> Dataset:
        """The data set whose images the cell is scored on: of the other classes' training images only the
        drawn ones. Raises ClueError where there are fewer."""
        if self.retain_images is None:
            return dataset
        kept = random_others(dataset.train, self.forget_class, self.retain_images)
        kept |= dataset.train.labels == self.forget_class
        return dataclasses.replace(dataset, train=dataset.train.select(kept))


@dataclass(frozen=True)
class Setting:
    """What all cells of a comparison share: the model, and where its images come from.

    test: whether the images are loaded with their test part; tuning goes without.
    """

    spec: ModelSpec
    source: str
    validation: int | None = None
    test: bool = True

    def load(self, progress: data.Progress | None = None) -> Dataset:
        """The images. Raises ClueError as `clue_mobile.data.load` does."""
        found = data.load(
            self.source,
            input_shape=self.spec.input_shape,
            classes=self.spec.classes,
            validation_per_class=self.validation,
            progress=progress,
        )
        return found if self.test else without_test(found)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Setting:
        """The setting that `to_json` wrote."""
        fields: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in values["spec"].items()
        }
        return cls(ModelSpec(**fields), values["source"], values["validation"], values["test"])


@dataclass(frozen=True)
class Task:
    """What a process is told to do: "compare" (a row of the table), "tune" (validation images only) or
    "train" (the original's weights, to `save`).

    weights: the original's file. retrained: weights of the retrained model, if they were given. save: where
    trained weights go. original_accuracy: in percent, of the original on the class's test images, once it is
    known.
    """

    kind: str
    cell: Cell
    threads: int
    weights: str = ""
    retrained: str = ""
    save: str = ""
    original_accuracy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Task:
        """The task that `to_json` wrote."""
        return cls(**{**values, "cell": Cell(**values["cell"])})


def without_test(dataset: Dataset) -> Dataset:
    """The data set with no test images; those it has are not touched."""
    return Dataset(dataset.classes, dataset.train, dataset.validation, dataset.train.take(0), dataset.source)


def data_identity(
    dataset: Dataset, spec: ModelSpec, parts: tuple[str, ...] = ("train", "validation", "test")
) -> str:
    """16 hexadecimal digits of the sha256 of the model's facts (classes, input, normalisation) and of the
    pixels and labels of `parts`."""
    digest = hashlib.sha256(json.dumps(spec.to_metadata()).encode())
    for name in parts:
        split = getattr(dataset, name)
        digest.update(f"{name} {split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()[:16]
