"""The measures by which class unlearning is compared with retraining, all in percent.

For a forgotten class f, with images as they are stored (no augmentation):

- UA: accuracy on the training images of f (the forget set);
- RA: accuracy on the training images of the other classes (the retain set);
- TA: accuracy on the test images of the other classes;
- MIA: how many images of the forget set a membership attack takes for ones never trained on. The attack is a
  support vector classifier (C = 3, radial basis functions, gamma "auto") on one feature, the softmax
  probability of the true label; it learns members from the retain set and non-members from the test images of
  the other classes.

A method is judged by its distance from the model retrained without f (`Scores.gap`), not by any extreme of
these. They are the usual measures of class unlearning, e.g. in Fan et al., SalUn, ICLR 2024, arXiv:2310.12508
(where UA is 100 minus ours).

A model may have more outputs than the data set has classes (a shadow class): they take part in every softmax
and energy, and are never right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clue_mobile.data import Dataset, Progress
from clue_mobile.errors import ClueError

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""Images, uint8 [N, H, W, C] for any N > 0, to logits, float32 [N, K], K at least the number of classes."""

Labelled = tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]
"""Logits [N, K] and the labels [N] of the images."""

Feature = Callable[[npt.NDArray[np.floating], npt.NDArray[np.int64]], npt.NDArray[np.float64]]
"""Logits [N, K] and labels [N] to one number for each image, [N]: what an attack sees of it."""

BATCH = 512
"""Images given to a Predict at once."""

MIA_LIMIT = 9000
"""The most members, and the most non-members, that the attack learns from."""


@dataclass(frozen=True)
class Scores:
    """The scores of one model, in percent; `per_class` is the accuracy on the test images of each class."""

    ua: float
    ra: float
    ta: float
    mia: float
    forget_test: float
    per_class: tuple[float, ...]

    def gap(self, reference: Scores) -> float:
        """Return the mean absolute difference from `reference` over UA, RA, TA and MIA, in points."""
        pairs = (
            (self.ua, reference.ua),
            (self.ra, reference.ra),
            (self.ta, reference.ta),
            (self.mia, reference.mia),
        )
        return sum(abs(own - other) for own, other in pairs) / len(pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON-able values."""
        return {
            "ua": self.ua,
            "ra": self.ra,
            "ta": self.ta,
            "mia": self.mia,
            "forget_test": self.forget_test,
            "per_class": list(self.per_class),
        }


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)


def energy(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return -log(sum(exp(logits))) over the last axis: low for images that the model takes for its own."""
    highest = logits.astype(np.float64).max(axis=-1)
    return -(highest + np.log(np.exp(logits.astype(np.float64) - highest[..., None]).sum(axis=-1)))


def accuracy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> float:
    """Return the percentage of rows of `logits` [N, K] whose largest entry is at their label [N].

    Raises ClueError for no rows, and for logits that are not finite, which argmax would count as some class.
    """
    if not len(labels):
        raise ClueError("there are no images to measure an accuracy on")
    if not np.isfinite(logits).all():
        raise ClueError("the model's logits are not all finite: its weights have diverged")
    return 100.0 * float(np.mean(logits.argmax(axis=-1) == labels))


def predict_all(
    predict: Predict, images: npt.NDArray[np.uint8], classes: int, progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """Return the logits [N, K] of images [N, H, W, C], predicted `BATCH` at a time; K is `classes` or more.

    Raises ClueError if the model's logits have another shape.
    """
    logits = np.empty((len(images), classes), dtype=np.float32)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        out = predict(batch)
        wrong = out.ndim != 2 or len(out) != len(batch) or out.shape[1] < classes
        if wrong or (start and out.shape[1] != logits.shape[1]):
            raise ClueError(
                f"for {len(batch)} images and {classes} classes the model gave logits {list(out.shape)}"
            )
        if not start:
            logits = np.empty((len(images), out.shape[1]), dtype=np.float32)
        logits[start : start + len(batch)] = out
        if progress is not None:
            progress(start + len(batch), len(images))
    return logits


def membership_attack(
    members: Labelled,
    others: Labelled,
    forgotten: Labelled,
    *,
    seed: int = 0,
    limit: int = MIA_LIMIT,
    feature: Feature | None = None,
) -> float:
    """Return the percentage of `forgotten` that the attack does not take for members.

    Each argument is (logits [N, K], labels [N]): images trained on, images not trained on, and the forget
    set. The attack learns from equally many of both kinds, the same number of each class, drawn with `seed`,
    at most `limit` of a kind. feature: what it sees of an image; None is the softmax probability of the true
    label. Raises ClueError if no class has images of both kinds, the forget set is empty, or logits are not
    finite. Its time grows with the square of the number drawn.
    """
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise ClueError(
            "the membership attack needs scikit-learn: pip install 'clue-mobile[export]'"
        ) from error
    if not len(forgotten[1]):
        raise ClueError("the membership attack has no images of the forgotten class")
    for logits, _ in (members, others, forgotten):
        if not np.isfinite(logits).all():
            raise ClueError("the model's logits are not all finite: its weights have diverged")
    seen = feature or true_probability
    counts = _quotas(members[1], others[1], limit)
    # RandomState, not default_rng: NumPy promises its stream for good, so a seed keeps its meaning.
    random = np.random.RandomState(seed)
    features = [seen(*kind)[_draw(kind[1], counts, random), None] for kind in (members, others)]
    is_member = np.repeat([1, 0], [len(features[0]), len(features[1])])
    attack = SVC(C=3, kernel="rbf", gamma="auto").fit(np.concatenate(features), is_member)
    return 100.0 * (1.0 - float(np.mean(attack.predict(seen(*forgotten)[:, None]))))


@dataclass(frozen=True, eq=False)
class Outputs:
    """A model's logits for every training and test image of a data set, float32 [N, K], in its order."""

    train: npt.NDArray[np.float32]
    test: npt.NDArray[np.float32]

    def parts(self, dataset: Dataset, forget_class: int) -> tuple[Labelled, Labelled, Labelled, Labelled]:
        """Logits and labels of the forget set, the retain set, the test images of the class and those of the
        other classes."""
        sides = (self.train, dataset.train.labels), (self.test, dataset.test.labels)
        (forget, retain), (unseen, others) = (
            [(logits[of], labels[of]) for of in (labels == forget_class, labels != forget_class)]
            for logits, labels in sides
        )
        return forget, retain, unseen, others


def outputs(predict: Predict, dataset: Dataset, progress: Progress | None = None) -> Outputs:
    """Predict the training and the test images; `progress(done, total)` counts both.

    Raises ClueError if the data set has no test images, and if the model's logits have another shape.
    """
    train, test = dataset.require("train"), dataset.require("test")
    total, classes = len(train) + len(test), len(dataset.classes)

    def predicted(images: npt.NDArray[np.uint8], before: int) -> npt.NDArray[np.float32]:
        report = None if progress is None else lambda done, _: progress(before + done, total)
        return predict_all(predict, images, classes, report)

    return Outputs(predicted(train.images, 0), predicted(test.images, len(train)))


def score(
    predict: Predict,
    dataset: Dataset,
    forget_class: int,
    seed: int = 0,
    mia_limit: int = MIA_LIMIT,
    progress: Progress | None = None,
) -> Scores:
    """Measure a model on a data set whose class number `forget_class` it was to forget.

    `progress(done, total)` counts images predicted; the attack comes last and is not counted. Raises
    ClueError if the data set has no test images, a single class, or no class of that number, and if the
    model's logits have another shape or are not finite.
    """
    check_classes(dataset, forget_class)
    found = outputs(predict, dataset, progress)
    return scores_of(found, dataset, forget_class, seed, mia_limit)


def check_classes(dataset: Dataset, forget_class: int) -> None:
    """Raise ClueError if the data set has a single class, or no class number `forget_class`."""
    classes = len(dataset.classes)
    if not 0 <= forget_class < classes:
        raise ClueError(f"there is no class {forget_class}: the data set has classes 0 to {classes - 1}")
    if classes < 2:
        raise ClueError("a data set of one class has nothing to retain")


def scores_of(
    found: Outputs, dataset: Dataset, forget_class: int, seed: int = 0, mia_limit: int = MIA_LIMIT
) -> Scores:
    """The scores that `score` gives, of logits that are there already."""
    forget, retain, _, others = found.parts(dataset, forget_class)
    test = dataset.test
    per_class = tuple(
        accuracy(found.test[test.labels == label], test.labels[test.labels == label])
        for label in range(len(dataset.classes))
    )
    return Scores(
        ua=accuracy(*forget),
        ra=accuracy(*retain),
        ta=accuracy(*others),
        mia=membership_attack(retain, others, forget, seed=seed, limit=mia_limit),
        forget_test=per_class[forget_class],
        per_class=per_class,
    )


def true_probability(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the softmax probability of each row's label, [N]."""
    return np.take_along_axis(softmax(logits), labels[:, None], axis=1)[:, 0]


def _quotas(
    members: npt.NDArray[np.int64], others: npt.NDArray[np.int64], limit: int
) -> npt.NDArray[np.int64]:
    """Return how many images of each label to draw from either kind, at most `limit` together.

    Both kinds get the same numbers: were their classes mixed differently, the mixture would betray the kind.
    """
    size = int(max(members.max(initial=-1), others.max(initial=-1))) + 1
    both = np.minimum(np.bincount(members, minlength=size), np.bincount(others, minlength=size))
    total = int(both.sum())
    if total == 0 or limit < 1:
        raise ClueError("the membership attack needs images of one class both trained on and not trained on")
    if total <= limit:
        return both
    counts, rests = np.divmod(both * limit, total)
    largest = np.argsort(-rests, kind="stable")[: limit - int(counts.sum())]
    counts[largest] += 1
    return counts


def _draw(
    labels: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], random: np.random.RandomState
) -> npt.NDArray[np.intp]:
    """Draw `counts[k]` positions of each label k, without putting back."""
    drawn = [
        random.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(counts)
    ]
    return np.concatenate(drawn)
