"""Requests other than "one class, all of it": classes one after the other, some images, a backdoor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clue_mobile.data import Dataset, Split, attack_set, poison, random_share
from clue_mobile.errors import ClueError
from clue_mobile.evaluate import accuracy, membership_attack, predict_all
from clue_mobile.evaluate.metrics import Predict

POISON_SEED = 0  # one poisoned training set for all seeds, as there is one original


@dataclass(frozen=True)
class Request:
    """What is to be forgotten, and what of the training images is to be kept. `name`: for the table."""

    name: str
    forget: Split
    retain: Split


@dataclass(frozen=True)
class Scenario:
    """train: what the original is trained on. requests: one after the other, each on the weights before.
    measure: the columns of the table, in percent, for a model after so many requests (0: the original)."""

    train: Split
    requests: Sequence[Request]
    measure: Callable[[Predict, int], Mapping[str, float]]


def sequential(dataset: Dataset, classes: Sequence[int], share: float, seed: int) -> Scenario:
    """The classes, one request each. Columns: UA of every one of them, after each request; RA and TA over the
    classes that were not asked for so far."""
    train, test = dataset.train, dataset.require("test")
    if len(classes) >= len(dataset.classes):
        raise ClueError("sequential requests for all classes leave nothing to retain: give fewer --classes")

    def kept(split: Split, count: int) -> Split:
        return split.select(~np.isin(split.labels, classes[:count]))

    def measure(predict: Predict, count: int) -> dict[str, float]:
        found = {f"UA {dataset.classes[k]}": _accuracy(predict, train.of_class(k), dataset) for k in classes}
        for name, split in (("RA", train), ("TA", test)):
            found[name] = _accuracy(predict, kept(split, count), dataset)
        return found

    requests = [
        Request(f"{dataset.classes[k]}", train.of_class(k), kept(train, at + 1))
        for at, k in enumerate(classes)
    ]
    return Scenario(train, requests, measure)


def samples(dataset: Dataset, classes: Sequence[int], share: float, seed: int) -> Scenario:
    """A random share of the training images of one class. A model that never saw them gets most of them
    right, as it does the class's test images, so UA should fall to the retrained model's and no further."""
    label = _one(classes, "samples")
    train, test = dataset.train, dataset.require("test")
    mask = random_share(train, label, share, seed)
    forget, retain = train.select(mask), train.select(~mask)

    def measure(predict: Predict, count: int) -> dict[str, float]:
        logits = [
            predict_all(predict, split.images, len(dataset.classes)) for split in (forget, retain, test)
        ]
        (forgotten, members, others), labels = logits, [forget.labels, retain.labels, test.labels]
        own, own_test = retain.labels == label, test.labels == label
        return {
            "UA": accuracy(forgotten, forget.labels),
            "rest of class": accuracy(members[own], retain.labels[own]),
            "class test": accuracy(others[own_test], test.labels[own_test]),
            "RA": accuracy(members, retain.labels),
            "TA": accuracy(others[~own_test], test.labels[~own_test]),
            "MIA": membership_attack(
                (members, labels[1]), (others, labels[2]), (forgotten, labels[0]), seed=seed
            ),
        }

    return Scenario(train, [Request(f"{len(forget)} images", forget, retain)], measure)


def backdoor(dataset: Dataset, classes: Sequence[int], share: float, seed: int) -> Scenario:
    """A share of the images of the other classes has a white square and the attacker's label; they are found,
    and are the forget set. Attack: how many test images of other classes the square turns into that label."""
    label = _one(classes, "backdoor")
    test = dataset.require("test")
    poisoned = poison(dataset.train, label, share, POISON_SEED)
    forget, clean = poisoned.split.select(poisoned.mask), poisoned.split.select(~poisoned.mask)
    attack = attack_set(test, label)

    def measure(predict: Predict, count: int) -> dict[str, float]:
        return {
            "attack": _accuracy(predict, attack, dataset),
            "poisoned": _accuracy(predict, forget, dataset),
            "clean train": _accuracy(predict, clean, dataset),
            "clean test": _accuracy(predict, test, dataset),
            "class test": _accuracy(predict, test.of_class(label), dataset),
        }

    return Scenario(poisoned.split, [Request(f"{len(forget)} poisoned", forget, clean)], measure)


KINDS: dict[str, Callable[[Dataset, Sequence[int], float, int], Scenario]] = {
    "sequential": sequential,
    "samples": samples,
    "backdoor": backdoor,
}


def _accuracy(predict: Predict, split: Split, dataset: Dataset) -> float:
    return accuracy(predict_all(predict, split.images, len(dataset.classes)), split.labels)


def _one(classes: Sequence[int], kind: str) -> int:
    if len(classes) != 1:
        raise ClueError(f"{kind} takes one class, not {len(classes)}: give one to --classes")
    return classes[0]
